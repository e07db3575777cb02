"""Rows of metrics as strict JSON lines, safe against crashes in mid-write."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dcft_jax.reporting.patient_file import PatientFile


def dumps(value: Any, indent: int | None = None) -> str:
    """Strict JSON: NaN and infinity, for which JSON has no word, become null."""
    return json.dumps(_strict(value), allow_nan=False, indent=indent)


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def replace_file(path: Path, text: str) -> None:
    """Writes `path` so that a crash leaves either the old or the new file, whole."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)  # space, where that is what there was not
        raise


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file in their order.

    A broken last line is what a killed process leaves behind and is left out.

    Raises:
      ValueError: another line is broken, or a row has no integer "step".
    """
    lines = path.read_bytes().split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_row(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise ValueError(
                f"{path}, line {number} is no row of metrics ({error}); "
                "only the last line may be broken. Remove that line to go on."
            ) from error
    return rows


def _row(line: bytes) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise ValueError('not an object with an integer "step"')
    return row


def rewind(path: Path, resume_step: int | None) -> list[dict[str, Any]]:
    """Drops the rows after `resume_step` (None: all rows) and returns the rest."""
    rows = read_rows(path) if path.exists() and resume_step is not None else []
    kept = [row for row in rows if row["step"] <= (resume_step or 0)]
    replace_file(path, "".join(dumps(row) + "\n" for row in kept))
    return kept


class JsonlWriter:
    """One row per call: {"step", "wall_s", <metric>...}; not finite is null.

    `wall_s` counts the seconds of the run so far and goes on, after a restart, from
    `wall_offset_s`, the last row kept. Every row is written at once, so it outlives a
    kill. On a full disk rows wait for space; see `PatientFile`.
    """

    def __init__(self, path: Path, wall_offset_s: float = 0.0):
        self._file = PatientFile(path)
        self._start_s = time.monotonic() - wall_offset_s

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        wall_s = round(time.monotonic() - self._start_s, 3)
        row = {"step": step, "wall_s": wall_s, **metrics}
        self._file.append(f"{dumps(row)}\n".encode())

    def close(self) -> list[dict[str, Any]]:
        """Returns the rows for which there was no space."""
        return [_row(record) for record in self._file.close()]
