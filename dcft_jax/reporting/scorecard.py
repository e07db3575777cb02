"""Scores for people and for programs: a table, one JSON, and what was replied."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from dcft_jax.evaluation.task import Score, TaskResult
from dcft_jax.reporting import jsonl

SCORES = "scores.json"


def score_table(scores: Sequence[Score], title: str) -> Table:
    """Value, standard error and chance level of every score; fits 80 columns."""
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in ("task", "metric", "score", "chance", "n"):
        table.add_column(
            name, justify="left" if name in ("task", "metric") else "right"
        )
    table.add_column("", overflow="fold")
    for score in scores:
        found, share = score.estimate, score.metric != "bits per byte"
        cells = (
            score.task,
            score.metric,
            f"{_shown(found.value, share)} ± {_shown(found.stderr, share)}"
            if found.n
            else "-",
            _shown(score.chance, share),
            f"{found.n} of {score.total}" if found.n < score.total else f"{found.n}",
            score.note,
        )
        table.add_row(*map(Text, cells))
    return table


def _shown(value: float, share: bool) -> str:
    if math.isnan(value):
        return "-"
    return f"{100 * value:.1f}%" if share else f"{value:.3f}"


def write_task(folder: Path, task: str, result: TaskResult) -> None:
    """What was asked and replied, one JSON object per line, in a file per task."""
    name = re.sub(r"[^\w.-]+", "_", task)
    lines = (jsonl.dumps(record) + "\n" for record in result.records)
    jsonl.replace_file(folder / f"{name}.jsonl", "".join(lines))


def write_scores(
    folder: Path, scores: Iterable[Score], about: Mapping[str, Any]
) -> None:
    """scores.json: `about`, and every score; what is not known is null."""
    rows = [
        {
            "task": score.task,
            "metric": score.metric,
            **dataclasses.asdict(score.estimate),
            "total": score.total,
            "chance": score.chance,
            "note": score.note,
        }
        for score in scores
    ]
    text = jsonl.dumps({**about, "scores": rows}, indent=2) + "\n"
    jsonl.replace_file(folder / SCORES, text)
