"""Does a predicted initial mixture help a new task? Full runs of the real trainer.

    python -m experiments.meta_initialisation --smoke
    python -m experiments.meta_initialisation --jobs 2
    python -m experiments.meta_initialisation --seeds 0 1 --tasks aiw bf
    python -m experiments.meta_initialisation --rows zero.csv one.csv

A seed draws a world: 3 to 5 abilities of families of Reasoning Gym, their sizes, a base
model; in the domain of the network in the package, and none of the worlds that it was
fitted on. Every way to start (`experiments.meta_runs.ARMS`) trains from that base on
the same rows in the same order, and is measured on held-out examples of tasks that
nothing was trained on: at the end, and at each of eight checkpoints for the tokens
until the uniform start's final loss. Without `--out` the runs are kept in
`runs/meta_initialisation` and the results go to `experiments/results`; with it both go
there. Started again, it goes on. `--rows` adds the tables of other calls, as far as
they are of the same seeds and tasks, and what they hold is not run again.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from rich.console import Console

from dcft_jax.evaluation import emerging
from dcft_jax.meta.families import FAMILIES
from dcft_jax.meta.worlds import Settings, smoke
from experiments.figures import save
from experiments.harness import available_cores, run_jobs, show_failures
from experiments.jobs import Job
from experiments.meta_choices import prepare_choices
from experiments.meta_data import prepare
from experiments.meta_measure import measure_jobs
from experiments.meta_report import BASELINE, check_bases, figure, report
from experiments.meta_runs import ARMS, CHOOSERS, make_jobs
from experiments.tables import Row, merge, read_csv, write_csv

RESULTS = Path(__file__).parent / "results"
NAME = "meta_initialisation"
SMOKE_TASK = "time_intervals"  # the one of the smallest settings


def write_results(rows: Sequence[Row], missing: Sequence[str], out: Path) -> str:
    """The table, the figure and the report. Returns the report."""
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / f"{NAME}.csv", rows)
    save(figure(rows), out / f"{NAME}.png")
    command = " ".join([f"python -m experiments.{NAME}", *sys.argv[1:]])
    text = f"`{command}`\n\n{report(rows, missing)}\n![losses]({NAME}.png)\n"
    (out / f"{NAME}.md").write_text(text)
    return text


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a minute, no science")
    parser.add_argument("--out", type=Path, help="folder for runs and results")
    parser.add_argument("--jobs", type=int, default=len(available_cores()))
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(6)])
    tasks = [*emerging.FAMILIES]
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=[*tasks, *FAMILIES],
        metavar="TASK",
        default=tasks,
        help="families that are no ability of the worlds; default: the emerging ones, "
        "which the network in the package has not learnt from either",
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=[*ARMS])
    parser.add_argument("--rows", type=Path, nargs="+", default=[], help="more tables")
    given = parser.parse_args(arguments)
    if BASELINE not in given.arms:
        given.arms = [BASELINE, *given.arms]
    if given.smoke:
        given.seeds, given.tasks, given.arms = [0], [SMOKE_TASK], ["meta", "uniform"]
    return given


def known_rows(given: argparse.Namespace) -> list[Row]:
    """Those of `--rows` that are of the seeds and tasks asked for."""
    rows = merge(*(read_csv(path) for path in given.rows)) if given.rows else []
    rows = [
        row for row in rows if row.seed in given.seeds and row.setting in given.tasks
    ]
    check_bases(rows)
    return rows


def left_jobs(
    given: argparse.Namespace,
    known: Sequence[Row],
    settings: Settings,
    data: Path,
    console: Console,
) -> list[Job]:
    """The jobs that no row is known of, with the data that they need."""
    there = {(row.setting, row.method, row.seed) for row in known}
    cells = product(given.tasks, given.arms, given.seeds)
    if there.issuperset(cells):
        return []
    with console.status("abilities, tasks and base models"):
        prepare(settings, given.seeds, given.tasks, data)
    if set(CHOOSERS) & set(given.arms):
        prepare_choices(settings, given.seeds, given.tasks, data, console)
    jobs = make_jobs(settings, given.seeds, given.tasks, given.arms, data)
    return [job for job in jobs if (job.setting, job.method, job.seed) not in there]


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    console, name = Console(), f"{NAME}_smoke" if given.smoke else NAME
    folder = given.out or Path("runs") / name
    out = given.out or (folder if given.smoke else RESULTS)
    settings, runs = smoke() if given.smoke else Settings(), folder / "runs"
    data = folder / "data" / settings.identity
    try:
        known = known_rows(given)
        jobs = left_jobs(given, known, settings, data, console)
        failures = run_jobs(jobs, runs, given.jobs, console)
        rows = merge(measure_jobs(jobs, runs, data, console), known)
        check_bases(rows)
    except KeyboardInterrupt:
        raise SystemExit("Stopped; the same command goes on from here.") from None
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    missing = [f"{failure.job.name}: failed" for failure in failures]
    text = write_results(rows, missing, out)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    show_failures(failures, console)
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
