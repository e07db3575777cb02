"""Where metrics go: metrics.jsonl, and by config TensorBoard, Weights & Biases."""

import math
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ml_collections import ConfigDict

from dcft_jax.reporting import jsonl
from dcft_jax.reporting.tensorboard import TensorboardWriter

METRICS_FILE = "metrics.jsonl"
WANDB_ID_FILE = "wandb_run_id.txt"


class Writer(Protocol):
    def write(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> list[dict[str, Any]] | None:
        """Returns the rows for which metrics.jsonl had no space, if it knows."""
        ...


def open_writers(
    workdir: str | Path,
    logging: ConfigDict,
    resume_step: int | None,
    config: Mapping[str, Any],
) -> Writer:
    """One writer that writes to everything `logging` asks for.

    Args:
      workdir: folder of the run; made if it is missing.
      logging: `tensorboard`, `wandb_project` and `wandb_mode`.
      resume_step: step of the checkpoint the run goes on from. Records of later
        steps are dropped: they will be made again. None: the run starts anew and
        every earlier record is dropped.
      config: of the whole run, shown by Weights & Biases.

    Returns:
      A `Writer`. `write` takes steps in order; a step may be written several times
      as long as no metric repeats. At `resume_step` itself the metrics that were
      recorded before the crash win and are not written again.

    Raises:
      ValueError: unknown `wandb_mode`, or metrics.jsonl is damaged.
      ImportError: Weights & Biases is asked for and not installed.
    """
    workdir = Path(workdir)
    if logging.wandb_project:
        _check_wandb(logging.wandb_mode)
    workdir.mkdir(parents=True, exist_ok=True)
    kept = jsonl.rewind(workdir / METRICS_FILE, resume_step)
    wall_s = float(kept[-1].get("wall_s") or 0.0) if kept else 0.0
    writers: list[Writer] = [jsonl.JsonlWriter(workdir / METRICS_FILE, wall_s)]
    if logging.tensorboard:
        writers.append(TensorboardWriter(workdir / "tensorboard", resume_step))
    if logging.wandb_project:
        writers.append(WandbWriter(workdir, logging, resume_step, config))
    recorded = {key for row in kept if row["step"] == resume_step for key in row}
    return Writers(writers, resume_step, recorded)


class Writers:
    """Several writers as one; refuses to record a metric of a step twice."""

    def __init__(
        self,
        writers: Sequence[Writer],
        resume_step: int | None = None,
        recorded: set[str] | None = None,
    ):
        self._writers = writers
        self._resume_step = resume_step
        self._last_step = -1 if resume_step is None else resume_step
        self._recorded = set(recorded or ())

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        step = int(step)
        if step < self._last_step:
            raise ValueError(
                f"metrics of step {step} come after those of step {self._last_step}; "
                "write steps in order"
            )
        if step > self._last_step:
            self._recorded.clear()
            self._last_step = step
        fresh = self._fresh(step, metrics)
        self._recorded.update(fresh)
        if fresh:
            for writer in self._writers:
                writer.write(step, fresh)

    def _fresh(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        repeated = sorted(self._recorded.intersection(metrics))
        if repeated and step != self._resume_step:
            raise ValueError(
                f"step {step} is recorded twice: {', '.join(repeated)}; "
                "write each metric once per step"
            )
        return {k: float(v) for k, v in metrics.items() if k not in self._recorded}

    def close(self) -> list[dict[str, Any]]:
        return [row for writer in self._writers for row in writer.close() or ()]


class Nowhere:
    """Of the processes that do not write."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        del step, metrics

    def close(self) -> None:
        pass


class WandbWriter:
    """Scalars to Weights & Biases; values that are not finite are left out.

    The run id lives in the workdir, so that a resumed run goes on in the same run.
    Steps the service already has are not sent again: it refuses to go back.
    """

    def __init__(
        self,
        workdir: Path,
        logging: ConfigDict,
        resume_step: int | None,
        config: Mapping[str, Any],
    ):
        wandb = _check_wandb(logging.wandb_mode)
        self._run = wandb.init(
            project=logging.wandb_project,
            mode=logging.wandb_mode,
            id=_wandb_id(workdir, resume_step),
            resume="allow" if logging.wandb_mode == "online" else None,
            name=workdir.resolve().name,
            dir=str(workdir),
            config=dict(config),
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        if step >= self._run.step:
            self._run.log(_finite(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


def _check_wandb(mode: object) -> Any:
    if mode not in ("online", "offline"):
        raise ValueError(
            f"logging.wandb_mode is {mode!r}; it must be 'online' or 'offline'"
        )
    try:
        import wandb
    except ImportError as error:
        raise ImportError(
            "logging.wandb_project is set, but Weights & Biases is not installed: "
            "`pip install wandb`, or set logging.wandb_project=''"
        ) from error
    return wandb


def _wandb_id(workdir: Path, resume_step: int | None) -> str:
    path = workdir / WANDB_ID_FILE
    if resume_step is None or not path.exists():
        jsonl.replace_file(path, secrets.token_hex(4) + "\n")
    return path.read_text(encoding="utf-8").strip()


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in metrics.items() if math.isfinite(value)}
