"""Does moving the mixture help? Every rule against static ones, in four settings.

    python -m experiments.mixture_ablation --smoke
    python -m experiments.mixture_ablation --jobs 8
    python -m experiments.mixture_ablation --out runs/mine --seeds 0 1 2 3 4
    python -m experiments.mixture_ablation --rows zero.csv one.csv

Every run takes the same number of steps on rows of the same length. The rules have the
options of configs/base.py: nothing is tuned to a setting. Without `--out` the runs are
kept in `runs/mixture_ablation` and the results go to `experiments/results`; with it
both go there. Started again, it goes on. A run leaves 5 MB. Seeds may be split over
machines: `--rows` adds the tables of other calls to this one, and what they hold is not
run again.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.figures import difference_figure, save
from experiments.harness import available_cores, run_jobs, show_failures
from experiments.jobs import Job
from experiments.mixture_methods import OURS, is_static, setting_jobs, smoke_jobs
from experiments.mixture_report import BASELINE, MARGIN, compare_all, report
from experiments.mixture_settings import SETTINGS, learnable
from experiments.static_grid import best_of_grid
from experiments.tables import Row, merge, read_csv, tidy_rows, write_csv

RESULTS = Path(__file__).parent / "results"
NAME = "mixture_ablation"


def learnable_abilities(jobs: Sequence[Job]) -> dict[str, list[str]]:
    """setting -> the abilities whose loss counts."""
    return {job.setting: learnable(job.config["abilities"]) for job in jobs}


def all_rows(jobs: Sequence[Job], runs: Path, added: Sequence[Path]) -> list[Row]:
    """The tidy table, with the best of the grid as a method."""
    runs_here = tidy_rows(jobs, runs)
    elsewhere = [
        [row for row in read_csv(path) if row.method in {job.method for job in jobs}]
        for path in added
    ]
    rows = merge(runs_here, *elsewhere)
    grid = dict.fromkeys(job.method for job in jobs if is_static(job.method))
    return rows + best_of_grid(rows, learnable_abilities(jobs), [*grid])


def not_given(jobs: Sequence[Job], added: Sequence[Path]) -> list[Job]:
    """The jobs that the added tables have no rows of."""
    given = {(r.setting, r.method, r.seed) for path in added for r in read_csv(path)}
    return [job for job in jobs if (job.setting, job.method, job.seed) not in given]


def write_results(
    jobs: Sequence[Job],
    missing: Sequence[str],
    runs: Path,
    added: Sequence[Path],
    out: Path,
) -> str:
    """The table, the figure and the report. Returns the report."""
    rows = all_rows(jobs, runs, added)
    members = learnable_abilities(jobs)
    comparisons = compare_all(rows, members)
    methods = list(dict.fromkeys(m for found in comparisons.values() for m in found))
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / f"{NAME}.csv", rows)
    label = f"mean test loss minus that of {BASELINE}, nats per token"
    figure = difference_figure(comparisons, methods, label, MARGIN)
    save(figure, out / f"{NAME}.png")
    command = " ".join([f"python -m experiments.{NAME}", *sys.argv[1:]])
    text = f"`{command}`\n\n" + report(rows, members, comparisons, OURS, missing)
    text += f"\n![differences to {BASELINE}]({NAME}.png)\n"
    (out / f"{NAME}.md").write_text(text)
    return text


def chosen(jobs: Sequence[Job], methods: Sequence[str]) -> list[Job]:
    """The jobs of these methods; BASELINE and jobs that they wait for always are.

    Raises:
      SystemExit: a method that there is not.
    """
    known = list(dict.fromkeys(job.method for job in jobs))
    unknown = sorted(set(methods) - set(known))
    if unknown:
        raise SystemExit(f"--methods: no {unknown}; there are {', '.join(known)}")
    wanted = {BASELINE, *methods}
    for job in jobs:
        if job.method in wanted:
            wanted |= {needed.method for needed in job.after}
    return [job for job in jobs if job.method in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a minute, no science")
    parser.add_argument("--out", type=Path, help="folder for runs and results")
    parser.add_argument("--jobs", type=int, default=len(available_cores()))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=Path, nargs="+", default=[], help="more tables")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=[*SETTINGS])
    parser.add_argument("--methods", nargs="+", help="some of them, by name")
    arguments = parser.parse_args()
    console, name = Console(), f"{NAME}_smoke" if arguments.smoke else NAME
    runs = (arguments.out or Path("runs") / name) / "runs"
    out = arguments.out or (runs.parent if arguments.smoke else RESULTS)
    jobs, refused = [], []
    if arguments.smoke:
        jobs = smoke_jobs(runs)
    else:
        for seed in arguments.seeds:
            for setting in arguments.settings:
                found = setting_jobs(setting, SETTINGS[setting](), seed, runs)
                jobs, refused = jobs + found[0], refused + found[1]
    if arguments.methods:
        jobs = chosen(jobs, arguments.methods)
    try:
        left = not_given(jobs, arguments.rows)
        failures = run_jobs(left, runs, arguments.jobs, console)
    except KeyboardInterrupt:
        raise SystemExit("Stopped; the same command goes on from here.") from None
    missing = [*dict.fromkeys(refused), *(f"{f.job.name}: failed" for f in failures)]
    text = write_results(jobs, missing, runs, arguments.rows, out)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    show_failures(failures, console)
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
