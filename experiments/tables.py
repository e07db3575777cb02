"""One tidy table of all runs: a row for each run, ability and metric."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dcft_jax.reporting import History, load_history
from experiments.harness import SUMMARY, is_finished
from experiments.jobs import Job


class Row(NamedTuple):
    """`tokens` and `seconds` (see `run_seconds`) are of the run itself; `extra_*` are
    what the method costs on top: runs it needs, and passes that are not steps."""

    setting: str
    method: str
    seed: int
    ability: str
    metric: str
    value: float
    stderr: float | None
    tokens: int
    seconds: float
    extra_tokens: int
    extra_seconds: float
    config_hash: str


def tidy_rows(jobs: Iterable[Job], runs: Path) -> list[Row]:
    """Rows of all jobs that have finished."""
    return [
        row
        for job in jobs
        if is_finished(job.workdir(runs))
        for row in _job_rows(job, runs)
    ]


def _job_rows(job: Job, runs: Path) -> list[Row]:
    history, summary = load_history(job.workdir(runs)), _summary(job, runs)
    extra_tokens, extra_seconds = _extra(job, runs)
    rows = []
    for k, (ability, record) in enumerate(summary["abilities"].items()):
        mix_val_T = history.scalar(f"mix_val/loss/{ability}")
        measured = {
            "test_loss": (record["test_loss_after"], record["test_loss_stderr_after"]),
            "exact_match": (
                record["exact_match_after"],
                record["exact_match_stderr_after"],
            ),
            "mix_val_loss": (float(mix_val_T[~np.isnan(mix_val_T)][-1]), None),
            "final_weight": (summary["weights_path"][-1][1][k], None),
        }
        rows += [
            Row(
                setting=job.setting,
                method=job.method,
                seed=job.seed,
                ability=ability,
                metric=metric,
                value=value,
                stderr=stderr,
                tokens=summary["tokens"],
                seconds=run_seconds(history),
                extra_tokens=extra_tokens,
                extra_seconds=extra_seconds,
                config_hash=job.config_hash,
            )
            for metric, (value, stderr) in measured.items()
            if value is not None
        ]
    return rows


def run_seconds(history: History) -> float:
    """Steps and evaluations times their median durations.

    The wall time would charge compilation to whichever method came first, and to all
    what other programs did meanwhile.
    """
    total = 0.0
    num_steps = history.config["run"]["num_steps"]
    eval_s_T, step_s_T = history.scalar("run/eval_s"), history.scalar("train/step_s")
    for count, value_T in (
        (num_steps, step_s_T),
        (np.sum(~np.isnan(eval_s_T)), eval_s_T),
    ):
        total += float(count * np.nanmedian(value_T))
    return total


def _extra(job: Job, runs: Path) -> tuple[int, float]:
    """Tokens and seconds besides the run's own tokens and steps."""
    needed = {n.workdir(runs): n for n in _all_needed(job)}
    tokens = sum(_summary(n, runs)["tokens"] for n in needed.values())
    seconds = sum(run_seconds(load_history(workdir)) for workdir in needed)
    # And the passes that a rule asks for beyond evaluations.
    extra_s_T = load_history(job.workdir(runs)).scalar("run/extra_s")
    passes_s = float(np.sum(~np.isnan(extra_s_T)) * np.nanmedian(extra_s_T))
    return tokens + _summary(job, runs)["extra_tokens"], seconds + passes_s


def _all_needed(job: Job) -> list[Job]:
    return [n for needed in job.after for n in (needed, *_all_needed(needed))]


def _summary(job: Job, runs: Path) -> dict[str, Any]:
    return json.loads((job.workdir(runs) / SUMMARY).read_text())


def score(
    rows: Sequence[Row],
    setting: str,
    method: str,
    metric: str,
    abilities: Sequence[str],
    reduce: Callable[[list[float]], float],
) -> dict[int, float]:
    """seed -> one number over the abilities, for the seeds that have all of them."""
    values: dict[int, dict[str, float]] = {}
    for row in rows:
        if (row.setting, row.method, row.metric) == (setting, method, metric):
            values.setdefault(row.seed, {})[row.ability] = row.value
    return {
        seed: float(reduce([found[ability] for ability in abilities]))
        for seed, found in sorted(values.items())
        if all(ability in found for ability in abilities)
    }


def paired(
    first: dict[int, float], second: dict[int, float]
) -> tuple[list[float], list[float]]:
    """The values of both for the seeds that both have."""
    seeds = sorted(first.keys() & second.keys())
    return [first[seed] for seed in seeds], [second[seed] for seed in seeds]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Replaces the file as a whole."""
    scratch = path.with_suffix(".tmp")
    with scratch.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)
    os.replace(scratch, path)


def read_csv(path: Path) -> list[Row]:
    """What `write_csv` wrote.

    Raises:
      ValueError: it is another table.
    """
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != Row._fields:
            raise ValueError(f"{path}: its columns are not {', '.join(Row._fields)}")
        return [_parse(row) for row in reader]


def _parse(row: Mapping[str, str]) -> Row:
    stderr = row["stderr"]
    return Row(
        setting=row["setting"],
        method=row["method"],
        seed=int(row["seed"]),
        ability=row["ability"],
        metric=row["metric"],
        value=float(row["value"]),
        stderr=float(stderr) if stderr else None,
        tokens=int(row["tokens"]),
        seconds=float(row["seconds"]),
        extra_tokens=int(row["extra_tokens"]),
        extra_seconds=float(row["extra_seconds"]),
        config_hash=row["config_hash"],
    )


def merge(first: Sequence[Row], *others: Sequence[Row]) -> list[Row]:
    """Rows of one table, and of the next ones what the earlier have no run of."""
    merged = list(first)
    for rows in others:
        known = {(row.setting, row.method, row.seed) for row in merged}
        merged += [r for r in rows if (r.setting, r.method, r.seed) not in known]
    return merged


def markdown(header: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
