"""What `experiments.meta_initialisation` found: tables, and a figure.

A seed is one draw of a world, of its data and of their order, so pairs of different
seeds are independent; a seed's value is the mean over its tasks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dcft_jax.reporting import canvas
from experiments.meta_measure import ACCURACY, LOSS, TRUSTED
from experiments.statistics import t_interval
from experiments.tables import Row, markdown

BASELINE = "uniform"
PAIRS = (("meta", "uniform"), ("meta_static", "uniform_static"), ("meta", "mean"))


class Difference(NamedTuple):
    """`values`: of each pair. The interval is nan for a single one."""

    mean: float
    interval: tuple[float, float]
    values: tuple[float, ...]


Values = dict[tuple[str, int], float]  # (task, seed) -> a number


def values_of(rows: Sequence[Row], arm: str, metric: str) -> Values:
    return {
        (row.setting, row.seed): row.value
        for row in rows
        if (row.method, row.metric) == (arm, metric)
    }


def curve(rows: Sequence[Row], arm: str, task: str, seed: int) -> np.ndarray:
    """Share of the steps and the target's loss there, [T, 2]."""
    found = [
        (int(row.metric.partition("@")[2]), row.value)
        for row in rows
        if (row.method, row.setting, row.seed) == (arm, task, seed)
        and row.metric.startswith(f"{LOSS}@")
    ]
    points_T2 = np.array(sorted(found), np.float64).reshape(-1, 2)
    points_T2[:, 0] /= max(points_T2[:, 0].max(initial=0.0), 1.0)
    return points_T2


def share_until(points_T2: np.ndarray, loss: float) -> float:
    """Share of the steps until the loss is reached; nan: it is not.

    Linear between two checkpoints; the first one counts from its own step on.
    """
    below = np.flatnonzero(points_T2[:, 1] <= loss)
    if not len(below):
        return float("nan")
    last = int(below[0])
    if last == 0:
        return float(points_T2[0, 0])
    (x0, y0), (x1, y1) = points_T2[last - 1], points_T2[last]
    return float(x0 + (x1 - x0) * (y0 - loss) / (y0 - y1))


def tokens_until_baseline(rows: Sequence[Row], arm: str) -> Values:
    """Tokens until the final loss of `BASELINE` is reached; nan: it is not."""
    target = values_of(rows, BASELINE, LOSS)
    budget = {(r.setting, r.seed): r.tokens for r in rows if r.method == arm}
    return {
        key: share_until(curve(rows, arm, *key), target[key]) * tokens
        for key, tokens in budget.items()
        if key in target
    }


def difference(first: Values, second: Values, tasks: Sequence[str]) -> Difference:
    """Of the seeds in which both have all the tasks: first less second."""
    seeds = sorted({seed for _, seed in first.keys() & second.keys()})
    complete = [
        seed
        for seed in seeds
        if all((task, seed) in first and (task, seed) in second for task in tasks)
    ]
    values = [
        float(np.mean([first[task, seed] - second[task, seed] for task in tasks]))
        for seed in complete
    ]
    if not values:
        return Difference(np.nan, (np.nan, np.nan), ())
    return Difference(
        float(np.mean(values)), t_interval(np.array(values)), tuple(values)
    )


def report(rows: Sequence[Row], missing: Sequence[str]) -> str:
    """Markdown: all arms, the pairs, the pairs task by task, and what is missing."""
    tasks = sorted({row.setting for row in rows})
    seeds = sorted({row.seed for row in rows})
    trusted = [row.value for row in rows if row.metric == TRUSTED]
    text = (
        f"{len(tasks)} tasks ({', '.join(tasks)}) and {len(seeds)} seeds, each with a "
        "world of its own. Differences are paired by seed, means over the tasks, with "
        "95 % t intervals over seeds.\n"
    )
    if trusted:
        text += (
            f"The network trusted its prediction in {sum(trusted):.0f} of "
            f"{len(trusted)} runs; in the others the fallback was used.\n"
        )
    before = [row.value for row in rows if row.metric == f"{LOSS}@0"]
    if before:
        text += f"Before training the target loss is {np.mean(before):.3f}.\n"
    text += "\n" + arms_table(rows, tasks)
    text += "\nPairs; negative losses and positive accuracies are better:\n\n"
    text += pairs_table(rows, tasks)
    if missing:
        text += "\nNot there:\n\n" + "".join(f"- {line}\n" for line in missing)
    return text


def arms_table(rows: Sequence[Row], tasks: Sequence[str]) -> str:
    header = [
        *("start", "target loss", "accuracy %", f"loss minus {BASELINE} [95 % t]"),
        *(f"accuracy minus {BASELINE}, points", f"{BASELINE}'s loss reached"),
        "tokens until then",
    ]
    table = []
    for arm in dict.fromkeys(row.method for row in rows):
        loss, accuracy = (values_of(rows, arm, metric) for metric in (LOSS, ACCURACY))
        until = np.array([*tokens_until_baseline(rows, arm).values()])
        reached = np.isfinite(until)
        less = ["", ""]
        if arm != BASELINE:
            less = _cells(rows, arm, BASELINE, tasks)
        table.append(
            [
                *(arm, f"{np.mean([*loss.values()]):.3f}"),
                *(f"{100 * np.mean([*accuracy.values()]):.2f}", *less),
                f"{reached.sum()} of {len(until)}",
                f"{until[reached].mean():,.0f}" if reached.any() else "-",
            ]
        )
    return markdown(header, table)


def pairs_table(rows: Sequence[Row], tasks: Sequence[str]) -> str:
    arms = {row.method for row in rows}
    table = []
    for first, second in PAIRS:
        if {first, second} <= arms:
            for names in ([*tasks], *([task] for task in tasks if len(tasks) > 1)):
                name = "all" if len(names) > 1 or len(tasks) == 1 else names[0]
                cells = _cells(rows, first, second, names)
                table.append([f"{first} - {second}", name, *cells])
    return markdown(["pair", "task", "loss", "accuracy, points"], table)


def _cells(
    rows: Sequence[Row], first: str, second: str, tasks: Sequence[str]
) -> list[str]:
    """The differences in loss and in accuracy, in nats and in points."""
    cells = []
    for metric, scale, digits in ((LOSS, 1.0, 3), (ACCURACY, 100.0, 2)):
        found = difference(
            values_of(rows, first, metric), values_of(rows, second, metric), tasks
        )
        low, high = (scale * x for x in found.interval)
        reach = (
            "[-, -]" if np.isnan(low) else f"[{low:+.{digits}f}, {high:+.{digits}f}]"
        )
        mean = "-" if np.isnan(found.mean) else f"{scale * found.mean:+.{digits}f}"
        cells.append(f"{mean} {reach}")
    return cells


def figure(rows: Sequence[Row]) -> Figure:
    """The target's loss over a run, and the paired differences of the final loss."""
    arms = list(dict.fromkeys(row.method for row in rows))
    tasks = sorted({row.setting for row in rows})
    drawn, (left, right) = canvas.figure(2, 1.8 + 0.35 * max(len(arms), 5))
    drawn.patch.set(facecolor="white", alpha=1.0)  # a file: the page may be dark
    label = "share of the tokens"
    canvas.label(left, "loss of the new task", "nats per token", label)
    for index, arm in enumerate(arms):
        curves = [curve(rows, arm, *key) for key in values_of(rows, arm, LOSS)]
        if curves:
            mean_T2 = np.mean(curves, axis=0)
            left.plot(*mean_T2.T, label=arm, **canvas.line_style(index))
    canvas.legend(drawn, left)
    others = [arm for arm in arms if arm != BASELINE]
    canvas.label(right, f"final loss minus {BASELINE}", "", "nats per token, 95 % t")
    right.axvline(0.0, color=canvas.INK, linewidth=0.8)
    for y, arm in enumerate(others):
        found = difference(
            values_of(rows, arm, LOSS), values_of(rows, BASELINE, LOSS), tasks
        )
        style = canvas.line_style(arms.index(arm))
        right.plot(found.interval, (y, y), color=style["color"], linewidth=3.0)
        right.plot(found.mean, y, "o", color=canvas.INK, markersize=4)
    right.set_yticks(range(len(others)), others)
    right.set_ylim(len(others) - 0.5, -0.5)
    return drawn
