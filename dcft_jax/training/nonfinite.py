"""Losses and gradients that are not finite: left out once, an end if they go on."""

import numpy as np

from dcft_jax.training.run import Run
from dcft_jax.training.step import StepMetrics

WAY_OUT = (
    "The last good checkpoint is kept in {checkpoints}; look at the data around this "
    "step, or start anew with a lower optimizer.learning_rate."
)


def report_nonfinite(run: Run, step: int, metrics: StepMetrics) -> None:
    """Says which abilities were left out of a step.

    Raises:
      FloatingPointError: nothing was finite in this step, or an ability was not in
        `run.max_nonfinite` of its steps in a row.
    """
    if not metrics.bad_K.any() and np.isfinite(metrics.grad_norm):
        return
    names = [run.abilities[k] for k in np.flatnonzero(metrics.bad_K)]
    subject = f"the loss or gradient of {', '.join(names)}" if names else "the gradient"
    what = f"{subject} is not finite at step {step}"
    way_out = WAY_OUT.format(checkpoints=run.workdir / "checkpoints")
    if not np.isfinite(metrics.grad_norm) or not metrics.count_K.any():
        raise FloatingPointError(f"{what}. {way_out}")
    most, limit = int(metrics.nonfinite_row_K.max()), run.config.run.max_nonfinite
    if most >= limit:
        raise FloatingPointError(
            f"{what}, as in {most} of its steps in a row; run.max_nonfinite = {limit}. "
            f"{way_out}"
        )
    run.report(
        f"Warning: {what}; left out of it. Steps so far: {_counts(run, metrics)}."
    )


def _counts(run: Run, metrics: StepMetrics) -> str:
    pairs = zip(run.abilities, metrics.nonfinite_K, strict=True)
    return ", ".join(f"{name} {count}" for name, count in pairs if count)
