"""Regret by trained models alone, on the cases where all methods have one.

A regret by a law may be the law's error. `prove` trains what the methods choose, and
then every method has a model at its mixture, or at most `regret.NEAR` from it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dcft_jax.meta.bootstrap import draw_tasks, interval
from dcft_jax.meta.leave_out import Row

# Of the table, and of a `Row`.
NUMBERS = {
    "nats": "measured",
    "relative": "measured_relative",
    "accuracy": "measured_accuracy",
}
UNTIL = {"share": "until_uniform"}
# Tables of their own beside that of the methods, see `report`.
ABLATIONS = {
    "ablation": "by parts of the embedding",
    "ablation_surrogate": "by the law learnt from",
}


def measured_table(rows: Sequence[Row], reference: str = "meta") -> dict[str, Any]:
    """The rows that were measured summed up by method, in loss, accuracy and tokens.

    A case is a task in a world. It counts if every method has a trained model there, of
    any seed of its ensembles, with an accuracy; a task counts once, with its mean over
    cases and seeds.

    Returns:
      A dict for `json.dumps`: `methods`, each with `nats` per response token,
      `relative` (nats over the spread of a case's losses) and `accuracy` (share of
      examples that the best trained mixture gets right, less that of this one), as
      `mean` and 95 % `interval`; `difference`: the same of the reference less each
      other method; `cases`, `tasks` and `categories`, how many. Without a case
      `methods` and `difference` are empty. `until_uniform` is such a dict of its own,
      of the cases in which the uniform mixture ends below the base: `share` of the
      budget until a method has its final loss, see `share_until_uniform`.
    """
    until = _table(rows, UNTIL, reference)
    return _table(rows, NUMBERS, reference) | {"until_uniform": until}


def _table(
    rows: Sequence[Row], numbers: Mapping[str, str], reference: str
) -> dict[str, Any]:
    methods = list(dict.fromkeys(row.method for row in rows))
    known = [
        row
        for row in rows
        if np.isfinite([getattr(row, field) for field in numbers.values()]).all()
    ]
    having = {m: {(r.world, r.task) for r in known if r.method == m} for m in methods}
    common = set.intersection(*having.values()) if having else set()
    known = [row for row in known if (row.world, row.task) in common]
    tasks = sorted({(row.category, row.task) for row in known})
    table: dict[str, Any] = {
        "methods": {},
        "difference": {},
        "cases": len(common),
        "tasks": len(tasks),
        "categories": len({category for category, _ in tasks}),
    }
    if not tasks:
        return table
    index_RT = draw_tasks([category for category, _ in tasks])
    arrays = {
        method: {
            name: _by_task(known, method, field, tasks)
            for name, field in numbers.items()
        }
        for method in methods
    }

    def summed_up(value_T: np.ndarray) -> dict[str, Any]:
        return {"mean": float(value_T.mean()), "interval": interval(value_T, index_RT)}

    for method, found in arrays.items():
        table["methods"][method] = {n: summed_up(x_T) for n, x_T in found.items()}
        if method != reference and reference in arrays:
            table["difference"][method] = {
                n: summed_up(arrays[reference][n] - x_T) for n, x_T in found.items()
            }
    return table


def _by_task(rows: Sequence[Row], method: str, field: str, tasks) -> np.ndarray:
    """Mean over worlds, each with its mean over seeds, [T]."""
    values: dict[tuple[str, str], dict[str, list[float]]] = {task: {} for task in tasks}
    for row in rows:
        if row.method == method:
            of_task = values[row.category, row.task]
            of_task.setdefault(row.world, []).append(getattr(row, field))
    return np.array(
        [np.mean([np.mean(x) for x in values[task].values()]) for task in tasks]
    )


def show_measured(table: dict[str, Any]) -> Group | str:
    """For people; fits 80 columns."""
    if not table["cases"]:
        return (
            "Measured regret: no task has a trained model at the mixture of every "
            "method; `prove` trains them."
        )
    columns = {"relative": ("of the spread", 3), "accuracy": ("points", 2)}
    title = (
        f"Measured regret on {table['cases']} cases of {table['tasks']} tasks, in loss "
        "and in exact match"
    )
    shown = [_show(table, title, columns)]
    until = table["until_uniform"]
    if until["cases"]:
        title = (
            f"Share of the budget until uniform's final loss, {until['cases']} cases "
            "in which that is below the base's"
        )
        shown.append(_show(until, title, {"share": ("%", 1)}))
    for name, what in ABLATIONS.items():
        if table.get(name, {"cases": 0})["cases"]:
            title = f"The network {what}, {table[name]['cases']} cases"
            shown.append(_show(table[name], title, columns))
    return Group(*shown)


def _show(
    table: dict[str, Any], title: str, columns: Mapping[str, tuple[str, int]]
) -> Table:
    """Of the numbers in `columns`: the head, and digits; all but `relative` in %."""
    shown = Table(
        title=title,
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    shown.add_column("method")
    for head, _ in columns.values():
        shown.add_column(head, justify="right")
        shown.add_column("95 %", justify="right")
    methods, first = table["methods"], next(iter(columns))
    for method in sorted(methods, key=lambda name: methods[name][first]["mean"]):
        cells = [method]
        for name, (_, digits) in columns.items():
            scale = 1 if name == "relative" else 100
            found = methods[method][name]
            mean, low, high = (
                f"{scale * x:.{digits}f}" for x in (found["mean"], *found["interval"])
            )
            cells += [mean, f"{low} to {high}"]
        shown.add_row(*map(Text, cells))
    return shown
