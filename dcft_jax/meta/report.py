"""The regret of all methods on categories they have not seen, with intervals."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from dcft_jax.meta.ablation import ablations
from dcft_jax.meta.bootstrap import draw_tasks, interval
from dcft_jax.meta.case import Case
from dcft_jax.meta.domain import experience_hash
from dcft_jax.meta.fit import DEFAULT, Options
from dcft_jax.meta.held_out import held_out_errors, summarise
from dcft_jax.meta.leave_out import Row, leave_one_category_out
from dcft_jax.meta.measured import measured_table
from dcft_jax.meta.regret import solve
from dcft_jax.meta.seed_noise import seed_noise
from dcft_jax.meta.surrogate import KINDS


def report(
    cases: Sequence[Case],
    *,
    kind: str = "two-domain",
    options: Options = DEFAULT,
    seeds: Sequence[int] = range(5),
    ablation_seeds: Sequence[int] = range(2),
    test_tasks: Collection[str] | None = None,
    test_worlds: Collection[str] | None = None,
    proved: Sequence[Case] = (),
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Leave-one-category-out of all methods, ablations, and errors of the surrogates.

    Args:
      cases: the experience.
      kind: of the surrogate that all mixtures are judged by and, but in the ablation of
        surrogates, learnt from.
      options: of the fits.
      seeds: of the ensembles.
      ablation_seeds: of the ensembles of the ablations; none: no ablations.
      test_tasks, test_worlds, proved: see `leave_one_category_out`.
      progress: is told what comes next.

    Returns:
      A dict for `json.dumps`; None: not known. `regret` and `regret_interval` by
      method, nats per response token, `judged_by` "trained models" where every method
      has some, else "laws"; `proved`: all about these models, see `measured_table`,
      and the same of the ablations, with their names;
      `laws`: regret by laws, see `table_of`; `seed_noise`: see there; `surrogate`:
      errors of the laws on mixtures left out; `ablation`, `ablation_surrogate`: of the
      network, by laws.

    Raises:
      ValueError: see `fit_laws`, `held_out_errors` and `leave_one_category_out`.
    """
    progress(f"laws of {len(cases)} cases")
    surrogates = {name: summarise(held_out_errors(name, cases)) for name in KINDS}
    solved = solve(cases, kind)

    def rows_of(about: str, **more: Any) -> list[Row]:
        return leave_one_category_out(
            solved,
            options=options,
            test_tasks=test_tasks,
            test_worlds=test_worlds,
            proved=proved,
            progress=lambda text: progress(f"{about}: {text}"),
            **more,
        )

    rows = rows_of("all methods", seeds=seeds)
    laws, measured = table_of(rows), measured_table(rows)
    found = _headline(laws, measured) | {
        "proved": measured,
        "laws": laws,
        "surrogate": {"kind": kind, "held_out": surrogates},
        "seed_noise": seed_noise(cases),
        "experience": experience_hash(cases),
        "num_cases": len(cases),
        "num_seeds": len(seeds),
    }
    if len(ablation_seeds):
        alone = partial(rows_of, "ablation", seeds=ablation_seeds)
        by_part, by_law = ablations(cases, alone, progress)
        for name, by, reference in (
            ("ablation", by_part, "all"),
            ("ablation_surrogate", by_law, kind),
        ):
            found[name] = {key: _brief(some) for key, some in by.items()}
            found["proved"][name] = measured_table(_as_methods(by), reference)
    return found


def _headline(laws: Mapping[str, Any], proved: Mapping[str, Any]) -> dict[str, Any]:
    if not proved["cases"]:
        names = ("regret", "regret_interval")
        return {"judged_by": "laws"} | {name: laws[name] for name in names}
    nats = {method: one["nats"] for method, one in proved["methods"].items()}
    return {
        "judged_by": "trained models",
        "regret": {method: one["mean"] for method, one in nats.items()},
        "regret_interval": {method: one["interval"] for method, one in nats.items()},
    }


def table_of(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows summed up by method, by laws.

    A task counts once, with its mean over worlds and seeds. Intervals: `draw_tasks`.

    Returns:
      `regret`: nats per response token; `relative`: over the spread of a case's losses;
      both with their intervals, and the second, of "meta" less each other method, as
      `difference`; `measured`: of trained models at nearly the mixture, and how many
      cases have one (counted for each seed; other cases for each method, so compare
      with care); `trusted`: share of the cases in which the network trusted itself.
    """
    methods = list(dict.fromkeys(row.method for row in rows))
    tasks = sorted({(row.category, row.task) for row in rows})
    index_RT = draw_tasks([category for category, _ in tasks])
    found: dict[str, Any] = {
        "regret": {},
        "regret_interval": {},
        "relative": {},
        "relative_interval": {},
        "difference": {},
        "difference_interval": {},
        "measured": {},
        "num_tasks": len(tasks),
        "num_categories": len({category for category, _ in tasks}),
    }
    relative = {m: _by_task(rows, m, tasks, "relative") for m in methods}
    for method in methods:
        regret_T = _by_task(rows, method, tasks, "regret")
        for name, value_T in (("regret", regret_T), ("relative", relative[method])):
            found[name][method] = float(value_T.mean())
            found[f"{name}_interval"][method] = interval(value_T, index_RT)
        found["measured"][method] = _measured(rows, method)
        if method != "meta" and "meta" in relative:
            less_T = relative["meta"] - relative[method]
            found["difference"][method] = float(less_T.mean())
            found["difference_interval"][method] = interval(less_T, index_RT)
    own = [row.trusted for row in rows if row.method == "meta"]
    found["trusted"] = float(np.mean(own)) if own else None
    return found


def show(found: dict[str, Any]) -> Table:
    """What `table_of` returns, for people; fits 80 columns."""
    table = Table(
        title=f"Regret by laws on {found['num_tasks']} tasks of "
        f"{found['num_categories']} categories left out",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method")
    for name in ("nats", "of the spread", "95 %", "measured", "cases"):
        table.add_column(name, justify="right")
    for method in sorted(found["regret"], key=found["relative"].__getitem__):
        low, high = found["relative_interval"][method]
        measured = found["measured"][method]
        cells = (
            method,
            f"{found['regret'][method]:.4f}",
            f"{found['relative'][method]:.3f}",
            f"{low:.3f} to {high:.3f}",
            "-" if measured["mean"] is None else f"{measured['mean']:.4f}",
            f"{measured['cases']}",
        )
        table.add_row(*map(Text, cells))
    return table


def _as_methods(rows_by_name: Mapping[str, Sequence[Row]]) -> list[Row]:
    """The same network under several names, to compare it with itself."""
    return [
        row._replace(method=name) for name, rows in rows_by_name.items() for row in rows
    ]


def _brief(rows: Sequence[Row]) -> dict[str, Any]:
    whole = table_of(rows)
    names = ("regret", "regret_interval", "relative", "relative_interval")
    return {name: whole[name]["meta"] for name in names} | {"trusted": whole["trusted"]}


def _by_task(rows: Sequence[Row], method: str, tasks, name: str) -> np.ndarray:
    """Mean over worlds and seeds, [T]."""
    values: dict[tuple[str, str], list[float]] = {task: [] for task in tasks}
    for row in rows:
        if row.method == method:
            values[row.category, row.task].append(getattr(row, name))
    return np.array([np.mean(values[task]) for task in tasks])


def _measured(rows: Sequence[Row], method: str) -> dict[str, Any]:
    known = [
        row.measured
        for row in rows
        if row.method == method and np.isfinite(row.measured)
    ]
    return {"mean": float(np.mean(known)) if known else None, "cases": len(known)}
