"""The training loop: evaluate, move the mixture, save, fetch, step, log.

The order matters. The mixture moves before the checkpoint is written, and data
are fetched after it, so a restored run continues exactly where this one stood.
"""

import contextlib
import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from dcft_jax.data import next_batch
from dcft_jax.evaluation.losses import exact_match, mean_loss
from dcft_jax.mixture import allocate
from dcft_jax.reporting import Progress, Writer, open_writers
from dcft_jax.sharding import match_sharding, place
from dcft_jax.training import checkpoint
from dcft_jax.training.composition import measure, update_mixture
from dcft_jax.training.finish import finish
from dcft_jax.training.held_out import EvalSet, place_split, score
from dcft_jax.training.log import StepLog
from dcft_jax.training.run import Run, abstract_state, jit_init
from dcft_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class HostMixture:
    """The mixture as the host needs it to choose data; read once per update."""

    weights_K: np.ndarray  # float32
    credit_K: np.ndarray  # float32
    position_K: np.ndarray  # int64: rows consumed of each stream
    last_update: int


def read_mixture(run: Run, state: TrainState) -> HostMixture:
    mixture = state.mixture
    return HostMixture(
        weights_K=np.asarray(run.program.rule.weights(mixture.rule), np.float32),
        credit_K=np.asarray(mixture.credit_K, np.float32),
        position_K=np.asarray(mixture.rows_K, np.int64),
        last_update=int(mixture.last_update),
    )


def next_slots(run: Run, host: HostMixture) -> tuple[dict, np.ndarray, HostMixture]:
    """Allocates slots to abilities and fetches their rows."""
    data = run.config.data
    counts_K, credit_K = allocate(host.weights_K, host.credit_K, data.num_slots)
    batch, position_K = next_batch(
        run.streams, host.position_K, counts_K, data.rows_per_slot
    )
    # The step stores the credit, so that it and the rows it explains are saved
    # together.
    batch["credit_K"] = credit_K
    after = dataclasses.replace(host, credit_K=credit_K, position_K=position_K)
    return place(batch, run.mesh, run.program.model.rules), counts_K, after


def evaluate_split(
    run: Run, params: Any, sets: list[EvalSet], split: str
) -> tuple[list, dict[str, float]]:
    """Scores of every ability on one split, and the same as flat metrics."""
    scores = score(run, params, sets, split)
    metrics = {}
    for name, ability in zip(run.abilities, scores, strict=True):
        for metric, (value, stderr) in (
            ("loss", mean_loss(ability)),
            ("exact_match", exact_match(ability)),
        ):
            metrics[f"{split}/{metric}/{name}"] = value
            metrics[f"{split}/{metric}_stderr/{name}"] = stderr
    return scores, metrics


def evaluate_and_update(
    run: Run, state: TrainState, mix_val: list[EvalSet], step: int
) -> tuple[TrainState, dict[str, float]]:
    """Measures every ability on its mix-val rows and moves the mixture."""
    scores, metrics = evaluate_split(run, state.params, mix_val, "mix_val")
    measured = measure(scores, np.asarray(state.mixture.val_loss_sum_KN))
    mixture = update_mixture(
        run.program.rule,
        state.mixture,
        measured,
        run.reference_loss_K,
        run.train_rows_K,
        jnp.int32(step),
    )
    # Computed outside the step, but laid out as the step returns it.
    mixture = match_sharding(mixture, state.mixture)
    weights_K = np.asarray(run.program.rule.weights(mixture.rule))
    for k, name in enumerate(run.abilities):
        metrics[f"mix_val/progress/{name}"] = float(measured.progress_K[k])
        metrics[f"mixture/weight/{name}"] = float(weights_K[k])
    return dataclasses.replace(state, mixture=mixture), metrics


def evaluate(
    run: Run, state: TrainState, mix_val: list[EvalSet], step: int
) -> tuple[TrainState, dict[str, float]]:
    """The evaluation due at a step. The test split is read at the two ends only."""
    started = time.perf_counter()
    state, metrics = evaluate_and_update(run, state, mix_val, step)
    if step in (0, run.num_steps):
        test = place_split(run, "test")
        metrics |= evaluate_split(run, state.params, test, "test")[1]
    return state, metrics | {"run/eval_s": time.perf_counter() - started}


def restore_or_init(run: Run, checkpoints: ocp.training.Checkpointer) -> TrainState:
    state = checkpoint.restore(checkpoints, abstract_state(run))
    if state is None:
        return jit_init(run)
    run.console.print(f"Resuming {run.workdir} at step {int(state.step)}.")
    return state


def run_steps(
    run: Run,
    state: TrainState,
    checkpoints: ocp.training.Checkpointer,
    writer: Writer,
    progress: Progress,
) -> TrainState:
    """Trains from `state` to the last step; the order is the module's subject."""
    mix_val = place_split(run, "mix_val")
    host = read_mixture(run, state)
    high_K, low_K = np.asarray(state.mixture.tokens_K2, np.float64).T
    log = StepLog(run, writer, progress, high_K * 2.0**32 + low_K)
    for step in range(int(state.step), run.num_steps + 1):
        at_end = step == run.num_steps
        due = step % run.config.run.eval_every == 0 or at_end
        if due and host.last_update != step:
            log.flush()
            with progress.phase("evaluating"):
                state, metrics = evaluate(run, state, mix_val, step)
            host = read_mixture(run, state)
            log.write(step, metrics)
        if checkpoint.is_due(checkpoints, step, at_end):
            log.flush()  # raises if a loss was not finite: such a state is not saved
            with progress.phase("saving"):
                checkpoint.save(checkpoints, step, state, run.metadata())
        if at_end:
            break
        batch, counts_K, host = next_slots(run, host)
        state, metrics = run.program.train_step(state, {}, batch)
        log.defer(step + 1, metrics, counts_K, host.position_K)
    return state


def train(run: Run) -> dict[str, Any]:
    """Trains (or resumes) a run and returns its summary.

    Raises:
      FloatingPointError: a loss stopped being finite; names step and ability.
    """
    options = run.config.run
    with (
        jax.set_mesh(run.mesh),
        checkpoint.open_checkpoints(
            run.workdir, options.save_every, options.keep_checkpoints
        ) as checkpoints,
    ):
        resume_step = checkpoints.latest.step if checkpoints.latest else None
        state = restore_or_init(run, checkpoints)
        writer = open_writers(
            run.workdir, run.config.logging, resume_step, run.plain_config
        )
        progress = Progress(run.num_steps, run.abilities, run.console, resume_step or 0)
        with contextlib.closing(writer), progress:
            state = run_steps(run, state, checkpoints, writer, progress)
    return finish(run, state)
