"""Does moving the mixture help? Every rule against static ones, in four settings.

    python -m experiments.mixture_ablation --smoke
    python -m experiments.mixture_ablation --jobs 8
    python -m experiments.mixture_ablation --out runs/mine --seeds 0 1 2 3 4

Every run takes the same number of steps on rows of the same length. The rules have the
options of configs/base.py: nothing is tuned to a setting. Without `--out` the runs are
kept in `runs/mixture_ablation` and the results go to `experiments/results`; with it
both go there. Started again, it goes on. A run leaves 5 MB.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax.mixture import RULES
from experiments.figures import difference_figure, save
from experiments.harness import available_cores, run_jobs, show_failures
from experiments.jobs import Job, make_job
from experiments.mixture_report import BASELINE, MARGIN, compare_all, report
from experiments.mixture_settings import SETTINGS, learnable
from experiments.static_grid import best_of_grid, simplex_grid
from experiments.tables import Row, tidy_rows, write_csv

RESULTS = Path(__file__).parent / "results"
NAME = "mixture_ablation"
OURS = "mirror_descent"
GRID_PARTS = 6
REPLAYS = ("mean", "path", "shuffled")


def static_configs(config: ConfigDict) -> dict[str, ConfigDict]:
    """Uniform, proportional, and the grid, by name."""
    configs = {}
    for prior in ("uniform", "proportional"):
        configs[prior] = _changed(config, rule="static", prior=prior)
    for weights_K in simplex_grid(len(config.abilities), GRID_PARTS):
        if len(set(weights_K)) > 1:  # that one is there already
            static = _changed(config, rule="static", prior="given")
            for ability, weight in zip(
                static.abilities.values(), weights_K, strict=True
            ):
                ability.weight = weight
            parts = "-".join(str(round(GRID_PARTS * weight)) for weight in weights_K)
            configs[f"grid_{parts}"] = static
    return configs


def rule_configs(config: ConfigDict) -> dict[str, ConfigDict]:
    """Every rule there is, from the prior of the setting."""
    rules = [rule for rule in RULES if rule not in ("static", "replay")]
    configs = {rule: _changed(config, rule=rule) for rule in rules}
    if config.mixture.prior != BASELINE:
        configs["static"] = _changed(config, rule="static")  # stays at that prior
    return configs


def replay_jobs(ours: Job, config: ConfigDict, runs: Path) -> list[Job]:
    """Static controls made from what our rule did: was it the schedule, or where it
    spent its time on average? None as long as there is no such rule."""
    if "replay" not in RULES:
        return []
    jobs = []
    for mode in REPLAYS:
        replay = _changed(config, rule="replay")
        options = dict(run=str(ours.workdir(runs)), mode=mode)
        replay.mixture.options.replay.update(options)
        name = f"replay_{mode}"
        jobs.append(make_job(ours.setting, name, ours.seed, replay, (ours,)))
    return jobs


def setting_jobs(
    setting: str, config: ConfigDict, seed: int, runs: Path
) -> tuple[list[Job], list[str]]:
    """All jobs of a setting and seed; and what the trainer refuses, with the reason."""
    jobs, refused = [], []
    for method, changed in (static_configs(config) | rule_configs(config)).items():
        try:
            jobs.append(make_job(setting, method, seed, changed))
        except ValueError as error:
            refused.append(f"{setting} / {method}: {error}")
    for job in [job for job in jobs if job.method == OURS]:
        jobs += replay_jobs(job, config, runs)
    return jobs, refused


def smoke_jobs(runs: Path) -> list[Job]:
    """One seed, two settings, three methods and 20 steps: does everything work?"""
    jobs = []
    for setting in ("balanced", "noisy"):
        config = SETTINGS[setting]()
        config.run.update(num_steps=20, eval_every=10, save_every=20)
        config.optimizer.warmup_steps = 2
        found, _ = setting_jobs(setting, config, 0, runs)
        kept = ("uniform", "proportional", OURS)
        jobs += [job for job in found if job.method in kept]
    return jobs


def _changed(config: ConfigDict, **mixture: str) -> ConfigDict:
    config = ConfigDict(config)
    config.mixture.update(mixture)
    return config


def all_rows(jobs: Sequence[Job], runs: Path) -> list[Row]:
    """The tidy table, with the best of the grid as a method."""
    rows = tidy_rows(jobs, runs)
    members = {setting: _members(jobs, setting) for setting in _settings(jobs)}
    grid = [*(j.method for j in jobs if j.method.startswith("grid_"))]
    names = list(dict.fromkeys(["uniform", "proportional", *grid]))
    return rows + best_of_grid(rows, members, names)


def _settings(jobs: Sequence[Job]) -> list[str]:
    return list(dict.fromkeys(job.setting for job in jobs))


def _members(jobs: Sequence[Job], setting: str) -> list[str]:
    config = next(job.config for job in jobs if job.setting == setting)
    return learnable(ConfigDict(config))


def write_results(
    jobs: Sequence[Job], refused: Sequence[str], runs: Path, out: Path
) -> str:
    """The table, the figure and the report. Returns the report."""
    rows = all_rows(jobs, runs)
    members = {setting: _members(jobs, setting) for setting in _settings(jobs)}
    comparisons = compare_all(rows, members)
    methods = list(dict.fromkeys(m for found in comparisons.values() for m in found))
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / f"{NAME}.csv", rows)
    label = f"mean test loss minus that of {BASELINE}, nats per token"
    figure = difference_figure(comparisons, methods, label, MARGIN)
    save(figure, out / f"{NAME}.png")
    command = " ".join([f"python -m experiments.{NAME}", *sys.argv[1:]])
    text = f"`{command}`\n\n" + report(rows, members, comparisons, OURS, refused)
    text += f"\n![differences to {BASELINE}]({NAME}.png)\n"
    (out / f"{NAME}.md").write_text(text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a minute, no science")
    parser.add_argument("--out", type=Path, help="folder for runs and results")
    parser.add_argument("--jobs", type=int, default=len(available_cores()))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=[*SETTINGS])
    arguments = parser.parse_args()
    console, name = Console(), f"{NAME}_smoke" if arguments.smoke else NAME
    runs = (arguments.out or Path("runs") / name) / "runs"
    out = arguments.out or (runs.parent if arguments.smoke else RESULTS)
    jobs, refused = [], []
    if arguments.smoke:
        jobs = smoke_jobs(runs)
    else:
        for setting in arguments.settings:
            for seed in arguments.seeds:
                found = setting_jobs(setting, SETTINGS[setting](), seed, runs)
                jobs, refused = jobs + found[0], refused + found[1]
    failures = run_jobs(jobs, runs, arguments.jobs, console)
    text = write_results(jobs, list(dict.fromkeys(refused)), runs, out)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    show_failures(failures, console)
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
