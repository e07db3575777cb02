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
    rng, W = np.random.default_rng(1), len(value_WT)
    draws = ((rng.integers(W, size=W), index_T) for index_T in index_RT)
    cells = (value_WT[np.ix_(index_W, index_T)] for index_W, index_T in draws)
    known = (drawn[np.isfinite(drawn)] for drawn in cells)
    means = [values.mean() for values in known if len(values)]
    return _percentiles(means) if means else None


def _percentiles(values: Sequence[float]) -> list[float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]
