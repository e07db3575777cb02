"""Do interpolated specialists rank mixtures as training on the mixtures does?

Both are in the experience: models trained on the mixtures of a world, and the corner
models among them interpolated to the same mixtures. At a corner the two are one model,
so rank correlations are also taken of mixtures inside the simplex alone.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from dcft_jax.meta.bootstrap import draw_tasks, world_interval
from dcft_jax.meta.case import Case
from dcft_jax.meta.held_out import spearman
from dcft_jax.meta.regret import SAME_MIXTURE, measured_mixtures, spread_of
from dcft_jax.meta.seed_noise import CORNER


class Agreement(NamedTuple):
    """Of one case; nan where it cannot be known.

    Attributes:
        mixtures: how many were both trained and interpolated.
        rank: Spearman's rho of the two losses of a mixture.
        rank_inside: the same without the corners.
        regret, regret_inside, uniform: nats per response token that the mixture with
            the best interpolation, the one inside the simplex with the best, and the
            uniform one cost more than the best, as trained.
        relative, relative_inside, uniform_relative: the same over the spread of the
            case's losses.
        corner: 1.0 if the mixture chosen is a corner, else 0.0.
    """

    mixtures: int
    rank: float
    rank_inside: float
    regret: float
    regret_inside: float
    uniform: float
    relative: float
    relative_inside: float
    uniform_relative: float
    corner: float


NUMBERS = Agreement._fields[1:]


def agreement(trained: Case, mixed: Case) -> Agreement:
    """Of the mixtures that both have; the losses of several seeds are averaged.

    Raises:
      ValueError: they have no three mixtures in common, or the uniform one is not
        among them.
    """
    weights_UK, loss_U, mixed_U = _common(trained, mixed)
    inside_U = weights_UK.max(axis=1) < CORNER
    away_U = 0.5 * np.abs(weights_UK - 1.0 / weights_UK.shape[1]).sum(axis=1)
    if len(loss_U) < 3 or away_U.min() > SAME_MIXTURE:
        raise ValueError(
            f"case of task {trained.task!r} in world {trained.world!r}: of the "
            f"{len(loss_U)} mixtures both trained and interpolated, 3 or more and the "
            "uniform one are needed; `collect` makes them"
        )
    chosen = int(np.argmin(mixed_U))
    regret_U = loss_U - loss_U.min()
    regret, uniform = float(regret_U[chosen]), float(regret_U[np.argmin(away_U)])
    inside = float(regret_U[inside_U][np.argmin(mixed_U[inside_U])])
    spread = spread_of(trained)
    return Agreement(
        mixtures=len(loss_U),
        rank=spearman(mixed_U, loss_U),
        rank_inside=spearman(mixed_U[inside_U], loss_U[inside_U]),
        regret=regret,
        regret_inside=inside,
        uniform=uniform,
        relative=regret / spread,
        relative_inside=inside / spread,
        uniform_relative=uniform / spread,
        corner=float(not inside_U[chosen]),
    )


def _common(trained: Case, mixed: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mixtures [U, K] and their losses when trained and when interpolated, [U]."""

    def by_mixture(case: Case) -> dict[tuple[int, ...], tuple[np.ndarray, float]]:
        weights_UK, loss_U = measured_mixtures(case)
        cells_UK = np.round(weights_UK / SAME_MIXTURE).astype(int).tolist()
        return dict(
            zip(map(tuple, cells_UK), zip(weights_UK, loss_U, strict=True), strict=True)
        )

    first, second = by_mixture(trained), by_mixture(mixed)
    both = [cell for cell in first if cell in second]
    weights_UK = np.array([first[cell][0] for cell in both])
    return (
        weights_UK.reshape(len(both), trained.features.num_abilities),
        np.array([first[cell][1] for cell in both]),
        np.array([second[cell][1] for cell in both]),
    )


def agreements(
    trained: Sequence[Case],
    mixed: Sequence[Case],
    tasks: Collection[str] | None = None,
) -> dict[str, Any]:
    """Means over tasks, for each world and over all of them, with intervals.

    A task that is an ability of its world is left out: its own corner is in the
    interpolation.

    Args:
      trained, mixed: the cases of trained and of interpolated models.
      tasks: to look at; None: all.

    Returns:
      A dict for `json.dumps`; None: not known. `worlds` by name and `pooled`, each
      with the numbers of `Agreement`, `difference` and `difference_inside` (relative
      regrets less that of uniform), as `mean` and 95 % `interval`, and how many
      mixtures (fewest and most of a case), tasks and cases. The interval of a world is
      over its tasks, the pooled one over worlds and tasks.

    Raises:
      ValueError: there is no case of both; see `agreement`.
    """
    others = {(case.world, case.task): case for case in mixed}
    found = {
        (case.world, case.category, case.task): agreement(
            case, others[case.world, case.task]
        )
        for case in trained
        if (case.world, case.task) in others
        and case.task not in case.abilities
        and (tasks is None or case.task in tasks)
    }
    if not found:
        raise ValueError(
            f"of {len(trained)} cases of trained models and {len(mixed)} of "
            f"interpolated ones, none is of one world and of the tasks {tasks or 'all'}"
        )
    worlds = list(dict.fromkeys(world for world, *_ in found))
    of_world = {
        name: {key: one for key, one in found.items() if key[0] == name}
        for name in worlds
    }
    return {
        "worlds": {name: _summed_up(part) for name, part in of_world.items()},
        "pooled": _summed_up(found),
    }


def _summed_up(found: dict[tuple[str, str, str], Agreement]) -> dict[str, Any]:
    worlds = sorted({world for world, *_ in found})
    tasks = sorted({(category, task) for _, category, task in found})
    index_RT = draw_tasks([category for category, _ in tasks])

    def value_WT(name: str) -> np.ndarray:
        array_WT = np.full((len(worlds), len(tasks)), np.nan)
        for (world, category, task), one in found.items():
            t = tasks.index((category, task))
            array_WT[worlds.index(world), t] = getattr(one, name)
        return array_WT

    arrays = {name: value_WT(name) for name in NUMBERS}
    for name in ("", "_inside"):
        less_WT = arrays[f"relative{name}"] - arrays["uniform_relative"]
        arrays[f"difference{name}"] = less_WT
    table: dict[str, Any] = {
        name: {
            "mean": float(np.nanmean(x_WT)) if np.any(np.isfinite(x_WT)) else None,
            "interval": world_interval(x_WT, index_RT),
        }
        for name, x_WT in arrays.items()
    }
    counts = [one.mixtures for one in found.values()]
    return {
        **table,
        "mixtures": [min(counts), max(counts)],
        "tasks": len(tasks),
        "cases": len(found),
    }


def show_agreements(found: dict[str, Any], title: str) -> Table:
    """For people; fits 80 columns."""
    table = Table(
        title=title,
        caption="rank correlations (inside: without corners); regret of the best by "
        "interpolation and of uniform, of the spread of a task's losses",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("world")
    names = ("tasks", "rank", "95 %", "inside", "95 %", "regret", "inside", "uniform")
    for name in names:
        table.add_column(name, justify="right")
    for world, one in (*found["worlds"].items(), ("all", found["pooled"])):
        regrets = ("relative", "relative_inside", "uniform_relative")
        cells = (
            # Without the hash of the settings.
            *(world.partition("-")[2] or world, str(one["tasks"])),
            *(_mean(one["rank"], 2), _range(one["rank"])),
            *(_mean(one["rank_inside"], 2), _range(one["rank_inside"])),
            *(_mean(one[name], 3) for name in regrets),
        )
        table.add_row(*map(Text, cells))
    return table


def _mean(number: dict[str, Any], digits: int) -> str:
    return "-" if number["mean"] is None else f"{number['mean']:.{digits}f}"


def _range(number: dict[str, Any]) -> str:
    if number["interval"] is None:
        return "-"
    low, high = number["interval"]
    return f"{low:.2f},{high:.2f}"
