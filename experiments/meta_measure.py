"""Loss and exact match of held-out tasks, at every checkpoint of a finished run.

The trainer has no task that it measures and does not train on. It keeps a checkpoint
of every evaluation instead, and these are measured here.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import track

from dcft_jax.data import Example, Rows, pack_examples
from dcft_jax.evaluation.losses import (
    exact_match,
    make_eval_step,
    mean_loss,
    score_split,
)
from dcft_jax.evaluation.rows import place_rows
from dcft_jax.reporting import load_history
from dcft_jax.training.meta_prior import FILE as PRIOR
from dcft_jax.training.trained import Trained, load_trained
from dcft_jax.training.workdir import write_json
from experiments.harness import SUMMARY
from experiments.jobs import Job
from experiments.meta_data import read_examples, task_path
from experiments.tables import Row, run_seconds

SLOTS = (1, 8)
LOSS, ACCURACY, TRUSTED = "target_loss", "target_accuracy", "trusted"
_eval_step = lru_cache(make_eval_step)


def measure_jobs(
    jobs: Sequence[Job], runs: Path, folder: Path, console: Console
) -> list[Row]:
    """Rows of all jobs that have finished; see `job_rows`."""
    finished = [job for job in jobs if (job.workdir(runs) / SUMMARY).is_file()]
    tasks: dict[Path, list[str]] = {}
    for job in finished:
        tasks.setdefault(job.workdir(runs), []).append(job.setting)
    found = {
        workdir: measure_run(workdir, list(dict.fromkeys(of_run)), folder)
        for workdir, of_run in track(
            tasks.items(), "measuring the tasks", console=console
        )
    }
    return [row for job in finished for row in job_rows(job, runs, found)]


def measure_run(workdir: Path, tasks: Sequence[str], folder: Path) -> dict[str, dict]:
    """task -> step -> its loss and accuracy with standard errors; kept in the folder.

    The checkpoints of a run whose prior is predicted for one task are removed then.
    """
    paths = {task: workdir / f"target-{task}.json" for task in tasks}
    missing = [task for task, path in paths.items() if not path.is_file()]
    if missing:
        examples = {
            task: read_examples(task_path(folder, task, "test")) for task in missing
        }
        steps = sorted(
            int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*")
        )
        measured = {step: measure_checkpoint(workdir, step, examples) for step in steps}
        for task in missing:
            by_step = {str(step): found[task] for step, found in measured.items()}
            write_json(paths[task], by_step)
        if (workdir / PRIOR).is_file():
            shutil.rmtree(workdir / "checkpoints")
    return {task: json.loads(path.read_text()) for task, path in paths.items()}


def measure_checkpoint(
    workdir: Path, step: int, examples: Mapping[str, Sequence[Example]]
) -> dict[str, dict[str, tuple[float, float]]]:
    """task -> mean and standard error of loss and accuracy."""
    trained = load_trained(workdir, str(step))
    length = trained.config["data"]["seq_len"]
    rows = {
        task: pack_examples(some, trained.tokenizer, length)
        for task, some in examples.items()
    }
    # One program for all tasks.
    most = max(one.scored_NM.shape[1] for one in rows.values())
    return {task: _scores(trained, one, most) for task, one in rows.items()}


def _scores(trained: Trained, rows: Rows, most: int):
    rules = trained.model.rules
    with jax.set_mesh(trained.mesh):
        batches = place_rows(rows, SLOTS, trained.mesh, rules, most)
        step = _eval_step(trained.model)
        scores = score_split(step, trained.params, batches, rows.num_examples)
    return {LOSS: mean_loss(scores), ACCURACY: exact_match(scores)}


def job_rows(
    job: Job, runs: Path, found: Mapping[Path, Mapping[str, dict]]
) -> list[Row]:
    """Loss and accuracy at the end, the loss at every checkpoint (`target_loss@STEP`),
    and whether a predicted prior was trusted.
    """
    workdir = job.workdir(runs)
    by_step = found[workdir][job.setting]
    summary = json.loads((workdir / SUMMARY).read_text())
    seconds = run_seconds(load_history(workdir))
    last = max(by_step, key=int)
    values = {metric: by_step[last][metric] for metric in (LOSS, ACCURACY)}
    values |= {f"{LOSS}@{step}": one[LOSS] for step, one in by_step.items()}
    if (workdir / PRIOR).is_file():
        trusted = json.loads((workdir / PRIOR).read_text())["trusted"]
        values[TRUSTED] = (float(trusted), None)
    return [
        Row(
            setting=job.setting,
            method=job.method,
            seed=job.seed,
            ability=job.setting,
            metric=metric,
            value=value,
            stderr=stderr,
            tokens=summary["tokens"],
            seconds=seconds,
            extra_tokens=summary["extra_tokens"],
            extra_seconds=0.0,
            config_hash=job.config_hash,
        )
        for metric, (value, stderr) in values.items()
    ]
