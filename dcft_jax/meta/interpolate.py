"""Interpolated specialists as a proxy for models trained on a mixture.

A specialist is trained on one ability alone, as long as the others. The weighted mean
of their changes, `base + sum_k w_k (specialist_k - base)`, costs no training
(MergeMix, arXiv:2601.17858; OP-Mix, arXiv:2605.15220).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def interpolate(base: Any, specialists: Any, weights_NK: np.ndarray) -> Any:
    """Parameters of N interpolated models, leaves [N, ...].

    Args:
      base: what the specialists started from.
      specialists: leaves [K, ...].
      weights_NK: on the simplex.
    """

    def mix(whole: jax.Array, special_K: jax.Array) -> jax.Array:
        w_NK = jnp.asarray(weights_NK, jnp.float32)
        highest = jax.lax.Precision.HIGHEST
        return whole + jnp.tensordot(w_NK, special_K - whole, 1, precision=highest)

    return jax.tree.map(mix, base, specialists)


def rank_correlation(x_NT: np.ndarray, y_NT: np.ndarray) -> np.ndarray:
    """Spearman's rho of every column, float64 [T]; nan if one of them is constant."""
    rank_NT, other_NT = _ranks(x_NT), _ranks(y_NT)
    rank_NT = rank_NT - rank_NT.mean(axis=0)
    other_NT = other_NT - other_NT.mean(axis=0)
    scale_T = np.sqrt((rank_NT**2).sum(axis=0) * (other_NT**2).sum(axis=0))
    scale_T = np.where(scale_T > 0, scale_T, np.nan)
    return (rank_NT * other_NT).sum(axis=0) / scale_T


def _ranks(x_NT: np.ndarray) -> np.ndarray:
    """Of every column; equal values have their mean rank."""
    below_NT = (x_NT[:, None] > x_NT).sum(axis=1)
    equal_NT = (x_NT[:, None] == x_NT).sum(axis=1)
    return below_NT + (equal_NT - 1) / 2
