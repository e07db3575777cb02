"""How much of a difference between mixtures the order of the data makes as well."""

from collections.abc import Sequence

import numpy as np

from dcft_jax.meta.case import Case
from dcft_jax.meta.regret import same_mixture

CORNER = 0.95  # a weight from which on a mixture is one ability alone


def seed_noise(cases: Sequence[Case]) -> dict[str, float | int | None]:
    """Standard deviations of a task's loss, nats; tasks that are abilities left out.

    Returns:
      Medians over the tasks: `mixtures`, between those inside the simplex (of the most
      frequent seed); `seeds`, between models of one mixture; `share_above_2`, of tasks
      whose ratio is above 2; `tasks`. None: no mixture was trained twice.
    """
    variance: dict[str, list[tuple[float, float]]] = {}
    for case in cases:
        found = _variances(case)
        if case.task not in case.abilities and found is not None:
            variance.setdefault(case.task, []).append(found)
    if not variance:
        nothing = dict.fromkeys(("mixtures", "seeds", "share_above_2"))
        return {**nothing, "tasks": 0}
    deviation_T2 = np.sqrt([np.mean(v, axis=0) for v in variance.values()])
    between_T, within_T = deviation_T2.T
    return {
        "mixtures": float(np.median(between_T)),
        "seeds": float(np.median(within_T)),
        "share_above_2": float(np.mean(between_T > 2 * within_T)),
        "tasks": len(variance),
    }


def _variances(case: Case) -> tuple[float, float] | None:
    loss_N = np.asarray(case.loss_N, np.float64)
    group_N = same_mixture(case)
    groups = [loss_N[group_N == g] for g in np.unique(group_N)]
    repeated = [group for group in groups if len(group) > 1]
    seeds, counts = np.unique(case.seed_N, return_counts=True)
    inside_N = (case.weights_NK.max(axis=1) < CORNER) & (
        case.seed_N == seeds[np.argmax(counts)]
    )
    if not repeated or inside_N.sum() < 2:
        return None
    freedom = sum(len(group) - 1 for group in repeated)
    within = sum(float(np.sum((g - g.mean()) ** 2)) for g in repeated) / freedom
    return float(np.var(loss_N[inside_N], ddof=1)), within
