"""Metrics of the training steps, read one step late.

Step t's numbers are fetched after step t + 1 was dispatched, so the device never
waits for the host to log.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax.reporting import Progress, Writer
from dcft_jax.training.composition import Composition
from dcft_jax.training.conflict_log import conflict_metrics, mean_over
from dcft_jax.training.measured import Measured
from dcft_jax.training.nonfinite import report_nonfinite
from dcft_jax.training.run import Run
from dcft_jax.training.state import MixtureState
from dcft_jax.training.step import StepMetrics


@dataclasses.dataclass(frozen=True)
class Row:
    """One step on the host: the device's metrics are numpy arrays here."""

    step: int
    metrics: StepMetrics
    slots_C: np.ndarray
    position_C: np.ndarray


class StepLog:
    """Collects steps into windows of `run.log_every` and writes each window."""

    def __init__(
        self, run: Run, writer: Writer, progress: Progress, tokens_K: np.ndarray
    ):
        self._run, self._writer, self._progress = run, writer, progress
        self._tokens_K = tokens_K.astype(np.float64)
        self._pending: tuple[int, StepMetrics, np.ndarray, np.ndarray] | None = None
        self._window: list[Row] = []
        self._started = time.perf_counter()

    def defer(
        self,
        step: int,
        metrics: StepMetrics,
        counts_C: np.ndarray,
        position_C: np.ndarray,
    ) -> None:
        """Takes the device metrics of the step that ended as number `step`."""
        previous, self._pending = self._pending, (step, metrics, counts_C, position_C)
        if previous:
            self._record(*previous)
        elif not self._window:
            self._started = time.perf_counter()

    def flush(self) -> None:
        """Reads and writes all that is pending; waits for the device."""
        if self._pending:
            pending, self._pending = self._pending, None
            self._record(*pending)
        if self._window:
            self._write_window()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._writer.write(step, metrics)
        self._progress.update(step, metrics)

    def _record(
        self,
        step: int,
        metrics: StepMetrics,
        counts_C: np.ndarray,
        position_C: np.ndarray,
    ) -> None:
        values: StepMetrics = jax.device_get(metrics)
        report_nonfinite(self._run, step, values)
        self._tokens_K += values.count_K
        self._window.append(Row(step, values, counts_C, position_C))
        if step % self._run.config.run.log_every == 0:
            self._write_window()

    def _write_window(self) -> None:
        rows, self._window = self._window, []
        now = time.perf_counter()
        seconds, self._started = (now - self._started) / len(rows), now
        last = rows[-1].step
        schedule = self._run.program.schedule
        tokens_per_step = self._run.rows_per_step * self._run.config.data.seq_len
        metrics = {
            "train/step_s": seconds,
            "train/tokens_per_s": tokens_per_step / seconds,
            "train/tokens": float(last * tokens_per_step),
            "train/learning_rate": float(jnp.asarray(schedule(last - 1))),
            "train/grad_norm": mean_over([row.metrics.grad_norm for row in rows]),
            **self._per_ability(rows),
            **conflict_metrics(
                [row.metrics.conflict for row in rows],
                self._run.abilities,
                self._run.program.engine.measured.names,
            ),
        }
        self.write(last, {k: v for k, v in metrics.items() if np.isfinite(v)})

    def _per_ability(self, rows: list[Row]) -> dict[str, float]:
        names = self._run.abilities
        loss_K = np.sum([row.metrics.loss_sum_K for row in rows], axis=0)
        count_K = np.sum([row.metrics.count_K for row in rows], axis=0)
        composition = self._run.program.composition
        slots_C = np.mean([row.slots_C for row in rows], axis=0)
        slots_K, rows_K, size_K = (
            np.bincount(composition.parts[0], weights=value_C, minlength=len(names))
            for value_C in (
                slots_C,
                rows[-1].position_C,
                composition.rows_per_epoch_C,
            )
        )
        epochs_K = rows_K / size_K
        metrics = self._per_tier(slots_C, rows[-1].position_C)
        for k, name in enumerate(names):
            if count_K[k]:
                metrics[f"train/loss/{name}"] = loss_K[k] / count_K[k]
            metrics[f"train/response_tokens/{name}"] = self._tokens_K[k]
            if rows[-1].metrics.nonfinite_K[k]:
                metrics[f"train/nonfinite/{name}"] = float(
                    rows[-1].metrics.nonfinite_K[k]
                )
            metrics[f"mixture/slots/{name}"] = slots_K[k]
            metrics[f"mixture/epochs/{name}"] = epochs_K[k]
        return {key: float(value) for key, value in metrics.items()}

    def _per_tier(
        self, slots_C: np.ndarray, position_C: np.ndarray
    ) -> dict[str, float]:
        composition = self._run.program.composition
        metrics = {}
        for c, (k, tier) in enumerate(zip(*composition.parts, strict=True)):
            if np.count_nonzero(composition.size_KT[k]) > 1:
                name = f"{self._run.abilities[k]}/{tier}"
                epochs = position_C[c] / composition.rows_per_epoch_C[c]
                metrics[f"mixture/tier_slots/{name}"] = slots_C[c]
                metrics[f"mixture/tier_epochs/{name}"] = epochs
        return metrics


def mixture_metrics(
    composition: Composition,
    abilities: Sequence[str],
    measured: Measured,
    mixture: MixtureState,
) -> dict[str, float]:
    """What an update measured, and the mixture it led to."""
    weights_K, shares_C = np.asarray(mixture.weights_K), np.asarray(mixture.shares_C)
    shares_K = np.bincount(
        composition.parts[0], weights=shares_C, minlength=len(abilities)
    )
    best_step_K = np.asarray(mixture.best_step_K)
    metrics = {}
    for k, name in enumerate(abilities):
        metrics[f"mix_val/progress/{name}"] = measured.progress_K[k]
        metrics[f"mix_val/rise/{name}"] = measured.rise_K[k]
        metrics[f"mix_val/best_step/{name}"] = best_step_K[k]
        metrics[f"mixture/weight/{name}"] = weights_K[k]
        metrics[f"mixture/share/{name}"] = shares_K[k]
        tiers = np.flatnonzero(composition.size_KT[k])
        for tier in tiers if len(tiers) > 1 else ():
            metrics[f"mix_val/tier_loss/{name}/{tier}"] = measured.loss_KT[k, tier]
    return {key: float(value) for key, value in metrics.items()}
