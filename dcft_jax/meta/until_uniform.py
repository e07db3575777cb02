"""How soon a mixture has the loss at which the uniform one ends, by trained models."""

from collections.abc import Mapping, Sequence

import numpy as np

from dcft_jax.meta.case import Case
from dcft_jax.meta.features import TASK
from dcft_jax.meta.regret import nearest_loss


def share_until(points_T2: np.ndarray, loss: float) -> float:
    """Share of a run until a loss is reached; nan: it is not.

    Linear between two points; the first one counts from its own share on.

    Args:
      points_T2: share of the run, in order, and the loss there.
    """
    below = np.flatnonzero(points_T2[:, 1] <= loss)
    if not len(below):
        return float("nan")
    last = int(below[0])
    if last == 0:
        return float(points_T2[0, 0])
    (x0, y0), (x1, y1) = points_T2[last - 1], points_T2[last]
    return float(x0 + (x1 - x0) * (y0 - loss) / (y0 - y1))


def share_until_uniform(stops: Sequence[Case], weights_K: np.ndarray) -> float:
    """Share of the budget until the final loss of the uniform mixture is reached.

    Args:
      stops: one task in one world after smaller and smaller parts of the budget, the
        whole of it first.

    Returns:
      1 if it is not reached before the end; nan: not known, or the uniform mixture ends
      above the loss of the base, which then is at its final loss from the beginning.
    """
    whole = stops[0]
    uniform_K = np.full_like(weights_K, 1 / len(weights_K))
    final = nearest_loss(whole, uniform_K)
    losses = [whole.before, *(nearest_loss(stop, weights_K) for stop in stops[::-1])]
    shares = [0.0, *(_budget(stop) / _budget(whole) for stop in stops[::-1])]
    if not np.isfinite([final, *losses, *shares]).all() or final >= whole.before:
        return float("nan")
    share = share_until(np.column_stack([shares, losses]), final)
    return 1.0 if np.isnan(share) else share


def stops_of(cases: Sequence[Case]) -> Mapping[tuple[str, str], list[Case]]:
    """(world, task) -> it and the cases of smaller budgets, the largest first.

    Worlds of one name but for what follows an "@" are stops of the same runs.
    """
    runs: dict[tuple[str, str], list[Case]] = {}
    for case in sorted(cases, key=_budget, reverse=True):
        runs.setdefault((_run(case), case.task), []).append(case)
    return {
        (case.world, case.task): of_run[index:]
        for of_run in runs.values()
        for index, case in enumerate(of_run)
    }


def _budget(case: Case) -> float:
    return float(np.exp(case.features.task_G[TASK.index("budget")]))


def _run(case: Case) -> str:
    run, at, _ = case.world.rpartition("@")
    return run if at else case.world
