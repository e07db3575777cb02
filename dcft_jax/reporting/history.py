"""The record of a run, read from its workdir into numpy arrays."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dcft_jax.reporting import jsonl
from dcft_jax.reporting.writers import METRICS_FILE

CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class History:
    """What a run recorded. T recorded steps, K abilities; NaN: not measured then."""

    workdir: Path
    abilities: tuple[str, ...]
    config: Mapping[str, Any]
    summary: Mapping[str, Any] | None  # None: the run has not ended (yet)
    step_T: np.ndarray  # int
    columns: Mapping[str, np.ndarray]  # metric -> float [T]

    def scalar(self, key: str) -> np.ndarray:
        """[T] values of one metric, all NaN if it was never recorded."""
        missing_T = np.full(len(self.step_T), np.nan)
        return self.columns.get(key, missing_T)

    def per_ability(self, prefix: str) -> np.ndarray:
        """[T, K] values of `prefix/<ability>`, e.g. of "mixture/weight"."""
        columns = [self.scalar(f"{prefix}/{ability}") for ability in self.abilities]
        return np.stack(columns, axis=-1)

    def cosines(self, kind: str = "cosine") -> np.ndarray:
        """[T, K, K] symmetric cosines between ability gradients; diagonal is 1.

        `kind`: "cosine" as measured, or "debiased_cosine" freed of noise.
        """
        num_abilities = len(self.abilities)
        cosine_TKK = np.full((len(self.step_T), num_abilities, num_abilities), np.nan)
        for i, first in enumerate(self.abilities):
            for j, second in enumerate(self.abilities):
                for key in (f"{first}/{second}", f"{second}/{first}"):
                    if i != j and f"conflict/{kind}/{key}" in self.columns:
                        cosine_TKK[:, i, j] = self.columns[f"conflict/{kind}/{key}"]
        measured_T = ~np.isnan(cosine_TKK).all(axis=(1, 2))
        diagonal = np.arange(num_abilities)
        cosine_TKK[:, diagonal, diagonal] = np.where(measured_T, 1.0, np.nan)[:, None]
        return cosine_TKK

    def block_cosines(self) -> tuple[np.ndarray, list[str]]:
        """[N, T, K, K] cosines of N blocks, the diagonal unknown, and their names."""
        prefix = "conflict/block_cosine/"
        keys = (key for key in self.columns if key.startswith(prefix))
        # As recorded: from the input to the output of the model.
        blocks = list(dict.fromkeys(key[len(prefix) :].split("/")[0] for key in keys))
        if not blocks:
            return np.empty((0, len(self.step_T), 0, 0)), []
        stacked = [self.cosines(f"block_cosine/{block}") for block in blocks]
        return np.stack(stacked), blocks

    def at(self, index: int) -> dict[str, float]:
        """The metrics of one recorded step by its index in T, without the NaN."""
        row = {key: float(column_T[index]) for key, column_T in self.columns.items()}
        return {key: value for key, value in row.items() if not np.isnan(value)}


def load_history(
    workdir: str | Path, unwritten: Sequence[dict[str, Any]] = ()
) -> History:
    """Reads config.json, metrics.jsonl and, if the run has ended, summary.json.

    Args:
      unwritten: rows that follow those of metrics.jsonl.

    Raises:
      FileNotFoundError: `workdir` is not the folder of a run.
      ValueError: a file of the run is damaged.
    """
    workdir = Path(workdir)
    for name in (CONFIG_FILE, METRICS_FILE):
        if not (workdir / name).is_file():
            raise FileNotFoundError(
                f"{workdir} is not the workdir of a run: it has no {name}. "
                "Give the folder that training was started with."
            )
    config = _read_json(workdir / CONFIG_FILE)
    if not config.get("abilities"):
        raise ValueError(f"{workdir / CONFIG_FILE} has no abilities")
    rows = jsonl.read_rows(workdir / METRICS_FILE)
    step_T, columns = _columns([*rows, *unwritten])
    return History(
        workdir=workdir,
        abilities=tuple(config["abilities"]),
        config=config,
        summary=_read_summary(workdir / SUMMARY_FILE, config),
        step_T=step_T,
        columns=columns,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return content


def _read_summary(path: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """None while a run goes on, also when it goes on beyond where it once ended."""
    summary = _read_json(path) if path.exists() else None
    if summary and summary.get("num_steps") == config["run"]["num_steps"]:
        return summary
    return None


def _columns(rows: list[dict[str, Any]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows to columns; rows of one step are joined, `wall_s` is that of the last."""
    step_T = np.array(sorted({row["step"] for row in rows}), dtype=np.int64)
    index = {step: i for i, step in enumerate(step_T.tolist())}
    columns: dict[str, np.ndarray] = {}
    for row in rows:
        for key, value in row.items():
            if key == "step" or value is None:
                continue
            column_T = columns.setdefault(key, np.full(len(step_T), np.nan))
            column_T[index[row["step"]]] = value
    return step_T, columns
