"""Intervals of means over tasks that belong to categories, and to worlds."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


def draw_tasks(categories: Sequence[str]) -> list[np.ndarray]:
    """Resampled tasks: categories are drawn, then tasks of each.

    A bootstrap of clusters (Davison and Hinkley 1997, section 3.8). Its intervals are
    too narrow for fewer than about ten categories.

    Args:
      categories: of each task.
    """
    rng = np.random.default_rng(0)
    members = [
        np.flatnonzero(np.array(categories) == name) for name in sorted(set(categories))
    ]
    drawn = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(len(members), size=len(members))
        drawn.append(
            np.concatenate([rng.choice(members[c], len(members[c])) for c in chosen])
        )
    return drawn


def interval(value_T: np.ndarray, index_RT: Sequence[np.ndarray]) -> list[float]:
    """Percentile interval of the mean, of tasks as `draw_tasks` draws them."""
    return _percentiles([value_T[index_T].mean() for index_T in index_RT])


def world_interval(
    value_WT: np.ndarray, index_RT: Sequence[np.ndarray]
) -> list[float] | None:
    """The same where worlds are drawn as well, independently of the tasks.

    Tasks of a world share its models, and a task is in many worlds; drawing both is a
    little too careful (Owen 2007, "The pigeonhole bootstrap").

    Args:
      value_WT: nan where a world does not have a task.
      index_RT: see `draw_tasks`.

    Returns:
      None: nothing is known.
    """
    W, T = value_WT.shape
    rng = np.random.default_rng(1)
    # How often each is drawn; the mean of all drawn cells that are known.
    count_RW = rng.multinomial(W, np.full(W, 1.0 / W), size=len(index_RT))
    count_RT = np.stack([np.bincount(index_T, minlength=T) for index_T in index_RT])
    known_WT = np.isfinite(value_WT)
    total_R, cells_R = (
        np.sum((count_RW @ array_WT) * count_RT, axis=1)
        for array_WT in (np.where(known_WT, value_WT, 0.0), known_WT.astype(float))
    )
    drawn_R = cells_R > 0
    return _percentiles(total_R[drawn_R] / cells_R[drawn_R]) if any(drawn_R) else None


def _percentiles(values: Sequence[float] | np.ndarray) -> list[float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]
