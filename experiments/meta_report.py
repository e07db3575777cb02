"""What `experiments.meta_initialisation` found: tables, and a figure.

A seed is one draw of a world, of its data and of their order, so pairs of different
seeds are independent; a seed's value is the mean over its tasks.

Of the fixed mixtures that were tried in a world the best one for a task, by its loss
at the end, is the `ORACLE`: what a sweep would find, with the test examples to choose.
"""

from collections.abc import Collection, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dcft_jax.meta.until_uniform import share_until
from dcft_jax.reporting import canvas
from experiments.meta_measure import ACCURACY, LOSS, TRUSTED
from experiments.statistics import t_interval
from experiments.tables import Row, markdown

BASELINE, ORACLE = "uniform", "oracle"
FIXED = ("tried_", "uniform_static")  # how arms of fixed mixtures are called
PAIRS = (
    *(("meta", "uniform"), ("meta_static", "uniform_static"), ("meta", "mean")),
    *(("meta", "ridge"), ("meta", "knn"), ("meta", "chameleon"), ("meta", ORACLE)),
)


class Difference(NamedTuple):
    """`values`: of each pair. The interval is nan for a single one."""

    mean: float
    interval: tuple[float, float]
    values: tuple[float, ...]


Key = tuple[str, int]  # task, seed
Values = dict[Key, float]


def with_oracle(rows: Sequence[Row]) -> list[Row]:
    """The best fixed mixture of each task and seed as an arm of its own, instead of the
    arms that were tried for it; as they are if none were.
    """
    tried = [row for row in rows if row.method.startswith(FIXED[0])]
    if not tried:
        return list(rows)
    best: dict[Key, Row] = {}
    for row in rows:
        if row.metric == LOSS and row.method.startswith(FIXED):
            key = (row.setting, row.seed)
            best[key] = min(best.get(key, row), row, key=lambda one: one.value)
    chosen = {(*key, row.method) for key, row in best.items()}
    oracle = [
        row._replace(method=ORACLE)
        for row in rows
        if (row.setting, row.seed, row.method) in chosen
    ]
    return [row for row in rows if not row.method.startswith(FIXED[0])] + oracle


def helped(rows: Sequence[Row]) -> list[Key]:
    """Where some fixed mixture ends below the loss before training."""
    before = values_of(rows, BASELINE, f"{LOSS}@0")
    end = values_of(rows, ORACLE, LOSS)
    return sorted(key for key, loss in end.items() if loss < before.get(key, -np.inf))


def check_bases(rows: Sequence[Row]) -> None:
    """Raises ValueError if arms of one seed started from other base models.

    Bases are trained where the runs are: other machines round otherwise, and end in
    other bases, so tables from two machines hold no pairs.
    """
    for key, loss in values_of(rows, BASELINE, f"{LOSS}@0").items():
        for row in rows:
            same = (row.setting, row.seed, row.metric) == (*key, f"{LOSS}@0")
            if same and abs(row.value - loss) > 1e-3:
                raise ValueError(
                    f"--rows: for {row.setting}, seed {row.seed}, {row.method} starts "
                    f"from a base with loss {row.value:.3f} and {BASELINE} from one "
                    f"with {loss:.3f}; run both on one machine"
                )


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


def tokens_until_baseline(rows: Sequence[Row], arm: str) -> Values:
    """Tokens until the final loss of `BASELINE` is reached; nan: it is not."""
    target = values_of(rows, BASELINE, LOSS)
    budget = {(r.setting, r.seed): r.tokens for r in rows if r.method == arm}
    return {
        key: share_until(curve(rows, arm, *key), target[key]) * tokens
        for key, tokens in budget.items()
        if key in target
    }


def difference(first: Values, second: Values, keys: Collection[Key]) -> Difference:
    """First less second, a value for each seed: the mean over its tasks in `keys`.

    Seeds of which one of them is not there are left out.
    """
    values = []
    for seed in sorted({seed for _, seed in keys}):
        own = [key for key in keys if key[1] == seed]
        if all(key in first and key in second for key in own):
            values.append(float(np.mean([first[key] - second[key] for key in own])))
    if not values:
        return Difference(np.nan, (np.nan, np.nan), ())
    return Difference(
        float(np.mean(values)), t_interval(np.array(values)), tuple(values)
    )


def report(rows: Sequence[Row], missing: Sequence[str]) -> str:
    """Markdown: all arms, the pairs, the pairs task by task, and what is missing."""
    rows = with_oracle(rows)
    tasks = sorted({row.setting for row in rows})
    seeds = sorted({row.seed for row in rows})
    keys = [*product(tasks, seeds)]
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
    text += "\n" + arms_table(rows, keys)
    some = helped(rows)
    if some:
        text += (
            f"\nIn {len(some)} of {len(keys)} pairs of task and seed the best fixed "
            "mixture ends below the loss before training. In these:\n\n"
        )
        text += arms_table(rows, some)
    if any({*pair} <= {row.method for row in rows} for pair in PAIRS):
        text += "\nPairs; negative losses and positive accuracies are better:\n\n"
        text += pairs_table(rows, keys, some)
    if missing:
        text += "\nNot there:\n\n" + "".join(f"- {line}\n" for line in missing)
    return text


def arms_table(rows: Sequence[Row], keys: Collection[Key]) -> str:
    """Of the tasks and seeds in `keys`."""
    header = [
        *("start", "target loss", "accuracy %", f"loss minus {BASELINE} [95 % t]"),
        *(f"accuracy minus {BASELINE}, points", f"{BASELINE}'s loss reached"),
        "tokens until then",
    ]
    table = []
    for arm in dict.fromkeys(row.method for row in rows):
        loss, accuracy, until = (
            np.array([value for key, value in found.items() if key in keys])
            for found in (
                *(values_of(rows, arm, metric) for metric in (LOSS, ACCURACY)),
                tokens_until_baseline(rows, arm),
            )
        )
        if not len(loss):
            continue
        reached = np.isfinite(until)
        less = ["", ""]
        if arm != BASELINE:
            less = _cells(rows, arm, BASELINE, keys)
        table.append(
            [
                *(arm, f"{loss.mean():.3f}", f"{100 * accuracy.mean():.2f}", *less),
                f"{reached.sum()} of {len(until)}",
                f"{until[reached].mean():,.0f}" if reached.any() else "-",
            ]
        )
    return markdown(header, table)


def pairs_table(
    rows: Sequence[Row], keys: Collection[Key], some: Collection[Key]
) -> str:
    """Of all keys, of some, and of each task."""
    arms = {row.method for row in rows}
    tasks = sorted({task for task, _ in keys})
    groups = {"all": keys}
    if some:
        groups["where a mixture helps"] = some
    if len(tasks) > 1:
        groups |= {task: [key for key in keys if key[0] == task] for task in tasks}
    table = [
        [f"{first} - {second}", name, *_cells(rows, first, second, group)]
        for first, second in PAIRS
        if {first, second} <= arms
        for name, group in groups.items()
    ]
    return markdown(["pair", "task", "loss", "accuracy, points"], table)


def _cells(
    rows: Sequence[Row], first: str, second: str, keys: Collection[Key]
) -> list[str]:
    """The differences in loss and in accuracy, in nats and in points."""
    cells = []
    for metric, scale, digits in ((LOSS, 1.0, 3), (ACCURACY, 100.0, 2)):
        found = difference(
            values_of(rows, first, metric), values_of(rows, second, metric), keys
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
    rows = with_oracle(rows)
    arms = list(dict.fromkeys(row.method for row in rows))
    keys = [*product({row.setting for row in rows}, {row.seed for row in rows})]
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
            values_of(rows, arm, LOSS), values_of(rows, BASELINE, LOSS), keys
        )
        style = canvas.line_style(arms.index(arm))
        right.plot(found.interval, (y, y), color=style["color"], linewidth=3.0)
        right.plot(found.mean, y, "o", color=canvas.INK, markersize=4)
    right.set_yticks(range(len(others)), others)
    right.set_ylim(len(others) - 0.5, -0.5)
    return drawn
