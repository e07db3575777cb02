"""Is a method better than a baseline? Differences of runs that share a seed.

Runs of one seed share the initial parameters and the order of every ability's data, so
their difference varies less than either. A lower value is better throughout.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Comparison:
    """A method minus its baseline over N pairs; intervals are nan for one pair."""

    mean: float
    t_interval: tuple[float, float]
    bootstrap_interval: tuple[float, float]
    superior_p: float  # of "not better"
    non_inferior_p: float  # of "worse by the margin or more"
    equivalent_p: float  # of "different by the margin or more"
    num_pairs: int


def compare(
    values: Sequence[float],
    baselines: Sequence[float],
    margin: float,
    level: float = 0.95,
) -> Comparison:
    """Compares runs paired by their position.

    Args:
      margin: the largest difference that does not matter, > 0; to be chosen before
        the results are seen.
      level: of the intervals, in (0, 1).

    Raises:
      ValueError: for unpaired or missing values, no pair, or a margin or level out of
        range.
    """
    value_N, baseline_N = np.asarray(values, float), np.asarray(baselines, float)
    if value_N.ndim != 1 or value_N.shape != baseline_N.shape or not value_N.size:
        raise ValueError(
            f"values {value_N.shape} and baseline {baseline_N.shape}, expected pairs."
        )
    if not (margin > 0 and 0 < level < 1):
        raise ValueError(
            f"margin is {margin} and level {level}, expected > 0 and in (0, 1)."
        )
    difference_N = value_N - baseline_N
    if not np.all(np.isfinite(difference_N)):
        raise ValueError(f"differences {difference_N} must be finite.")
    non_inferior_p = p_below(difference_N, margin)
    return Comparison(
        mean=float(difference_N.mean()),
        t_interval=t_interval(difference_N, level),
        bootstrap_interval=bootstrap_interval(difference_N, level),
        superior_p=p_below(difference_N, 0.0),
        non_inferior_p=non_inferior_p,
        # Two one-sided tests (Schuirmann 1987): both have to reject.
        equivalent_p=max(non_inferior_p, p_below(-difference_N, margin)),
        num_pairs=len(difference_N),
    )


def t_interval(difference_N: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean: exact for normal differences, also for few."""
    num = len(difference_N)
    if num < 2:
        return np.nan, np.nan
    mean = difference_N.mean()
    reach = stats.t.ppf((1 + level) / 2, num - 1) * _stderr(difference_N)
    return float(mean - reach), float(mean + reach)


def bootstrap_interval(
    difference_N: np.ndarray, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979).

    It assumes no distribution, but is too narrow for few pairs. The extreme case is the
    usual one here: of three pairs all resamples equal the lowest in 1/27 of cases, so
    the 95 % interval runs from the lowest to the highest difference, and that holds
    the mean of a symmetric distribution in 75 % of cases only. Read it next to
    `t_interval`, which is right there.
    """
    num = len(difference_N)
    if num < 2:
        return np.nan, np.nan
    index_RN = np.random.default_rng(seed).integers(num, size=(_RESAMPLES, num))
    mean_R = difference_N[index_RN].mean(axis=1)
    low, high = np.quantile(mean_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def p_below(difference_N: np.ndarray, bound: float) -> float:
    """p-value of the one-sided t test of "the mean is not below the bound"."""
    num = len(difference_N)
    if num < 2:
        return np.nan
    distance, stderr = difference_N.mean() - bound, _stderr(difference_N)
    if stderr == 0:  # every pair says the same
        return float(np.heaviside(distance, 1.0))
    return float(stats.t.cdf(distance / stderr, num - 1))


def _stderr(difference_N: np.ndarray) -> float:
    return float(difference_N.std(ddof=1) / np.sqrt(len(difference_N)))
