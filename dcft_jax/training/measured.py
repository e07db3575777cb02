"""One mix-val evaluation, paired with earlier ones, on the host."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from dcft_jax.evaluation.losses import (
    Scores,
    exact_match,
    loss_by_tier,
    mean_loss,
    paired_progress,
    progress_by_tier,
)

NAN = float("nan")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Measured:
    """float32; `[K]`, or `[K, T]` for the difficulty tiers. nan: not measured."""

    loss_K: np.ndarray
    loss_stderr_K: np.ndarray
    accuracy_K: np.ndarray
    progress_K: np.ndarray  # since the last evaluation, on the same examples
    progress_stderr_K: np.ndarray
    rise_K: np.ndarray  # over the best evaluation so far, on the same examples
    rise_stderr_K: np.ndarray
    loss_KT: np.ndarray
    loss_stderr_KT: np.ndarray
    progress_KT: np.ndarray
    progress_stderr_KT: np.ndarray
    loss_sum_KN: np.ndarray  # per example


def measure(
    scores: Sequence[Scores],
    before_sum_KN: np.ndarray,
    best_sum_KN: np.ndarray,
    tier_KN: np.ndarray,
    num_tiers: int,
    accuracy_K: np.ndarray | None = None,
) -> Measured:
    """Summarises an evaluation.

    Args:
      scores: of each ability.
      before_sum_KN: loss sums of the examples at the last evaluation, nan for others.
      best_sum_KN: at the best one of their ability.
      tier_KN: which tier each example is in; -1 where an ability has fewer than N.
      num_tiers: T.
      accuracy_K: measured otherwise; None: exact match.
    """
    sums_KN = np.full(before_sum_KN.shape, NAN, np.float32)
    rows, tiers = [], []
    for k, ability in enumerate(scores):
        size = len(ability.loss_sum_N)
        sums_KN[k, :size] = ability.loss_sum_N
        progress = paired_progress(before_sum_KN[k, :size], ability)
        gain, gain_stderr = paired_progress(best_sum_KN[k, :size], ability)
        accuracy = exact_match(ability)[0] if accuracy_K is None else accuracy_K[k]
        rows.append(
            (*mean_loss(ability), accuracy, *progress, -gain, gain_stderr),
        )
        before_N, tier_N = before_sum_KN[k, :size], tier_KN[k, :size]
        loss = loss_by_tier(ability, tier_N, num_tiers)
        tiers.append((*loss, *progress_by_tier(before_N, ability, tier_N, num_tiers)))
    return Measured(
        *np.array(rows, np.float32).T,
        *np.moveaxis(np.array(tiers, np.float32), 1, 0),
        loss_sum_KN=sums_KN,
    )
