"""What the conflict diagnostics of a window of steps come to, as flat metrics."""

from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike

from dcft_jax.conflict import Diagnostics


def conflict_metrics(
    window: Sequence[Diagnostics], abilities: Sequence[str], groups: Sequence[str]
) -> dict[str, float]:
    """Means over a window of steps, on the host; nan where nothing was measured.

    Noise scales and debiased cosines are ratios of means, never means of ratios:
    numerator and denominator are unbiased in every step, their ratio is not.

    Args:
      window: diagnostics with numpy arrays.
      groups: names of the groups of parameters; cosines per group are given if there
        is more than one.
    """
    metrics = {
        f"conflict/{name}": mean_over([getattr(d, field) for d in window])
        for name, field in (
            ("acted", "acted"),
            ("change", "change"),
            ("min_cosine", "min_cosine"),
            ("rate", "conflict_rate"),
            ("significant_rate", "significant_rate"),
            ("pareto_gap", "pareto_gap"),
        )
    }
    coefficients_K = np.mean([d.coefficients_K for d in window], axis=0)
    noise_scale_K = noise_scale(window)
    for k, name in enumerate(abilities):
        metrics[f"conflict/coefficient/{name}"] = coefficients_K[k]
        metrics[f"conflict/noise_scale/{name}"] = noise_scale_K[k]
    metrics |= _pairs(
        "conflict/cosine", _nanmean([d.cosines_KK for d in window]), abilities
    )
    metrics |= _pairs("conflict/debiased_cosine", debiased_cosines(window), abilities)
    if len(groups) > 1:
        cosines_GKK = _nanmean([d.group_cosines_GKK for d in window])
        for name, cosines_KK in zip(groups, cosines_GKK, strict=True):
            metrics |= _pairs(f"conflict/block_cosine/{name}", cosines_KK, abilities)
    return {key: float(value) for key, value in metrics.items()}


def noise_scale(window: Sequence[Diagnostics]) -> np.ndarray:
    """Simple noise scale `[K]` in response tokens (arXiv:1812.06162, eq. 2.9).

    About the batch beyond which more tokens of the ability stop helping its gradient.
    nan where the window shows no gradient beyond its noise.
    """
    signal_K = _nanmean([d.signal_K for d in window])
    noise_K = _nanmean([d.noise_K for d in window])
    return np.where(signal_K > 0, noise_K / np.where(signal_K > 0, signal_K, 1), np.nan)


def debiased_cosines(window: Sequence[Diagnostics]) -> np.ndarray:
    """Cosines `[K, K]` between the gradients freed of noise, in [-1, 1] or nan."""
    gram_KK = _nanmean([d.gram_KK for d in window])
    signal_K = _nanmean([d.signal_K for d in window])
    norm_K = np.sqrt(np.where(signal_K > 0, signal_K, np.nan))
    return np.clip(gram_KK / norm_K[:, None] / norm_K, -1, 1)


def mean_over(values: Sequence[ArrayLike]) -> float:
    """Mean of the scalars that are finite; nan if none is."""
    return float(_nanmean(values))


def _pairs(prefix: str, value_KK: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    return {
        f"{prefix}/{names[i]}/{names[j]}": value_KK[i, j]
        for i in range(len(names))
        for j in range(i + 1, len(names))
    }


def _nanmean(values: Sequence[ArrayLike]) -> np.ndarray:
    """Mean over the first axis of what was measured; nan where nothing was."""
    x = np.stack([np.asarray(value, np.float64) for value in values])
    measured = np.isfinite(x)
    total = np.where(measured, x, 0.0).sum(axis=0)
    return np.where(measured.any(axis=0), total / measured.sum(axis=0).clip(1), np.nan)
