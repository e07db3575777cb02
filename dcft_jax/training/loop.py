"""The training loop: evaluate, move the mixture, save, fetch, step, log.

The order matters. The mixture moves before the checkpoint is written, and data
are fetched after it, so a restored run continues exactly where this one stood. A run
that is told to end saves what the last step left: it evaluates when it goes on.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from dcft_jax.data import next_batch
from dcft_jax.distributed import check_same, first_goes_first, is_first
from dcft_jax.evaluation.losses import exact_match, mean_loss
from dcft_jax.mixture import allocate
from dcft_jax.reporting import Nowhere, Progress, Writer, open_writers
from dcft_jax.sharding import match_sharding, place
from dcft_jax.training import checkpoint, full_disk, preemption
from dcft_jax.training.continuation import continue_run
from dcft_jax.training.exclusive import held
from dcft_jax.training.finish import finish
from dcft_jax.training.full_disk import find_unsaved, wait_for_save
from dcft_jax.training.generated import (
    Generation,
    can_reply,
    is_due,
    mix_val_accuracy,
    open_generation,
    test_accuracy,
)
from dcft_jax.training.held_out import EvalSet, place_split, rotate, score
from dcft_jax.training.log import StepLog, mixture_metrics
from dcft_jax.training.measured import measure
from dcft_jax.training.passes import Pass, make_passes, run_passes
from dcft_jax.training.provenance import changes
from dcft_jax.training.recovery import restore, set_aside_unlistable
from dcft_jax.training.run import Run, abstract_state, jit_init
from dcft_jax.training.state import TrainState


class HeldOut(NamedTuple):
    """What evaluations read."""

    mix_val: list[EvalSet]
    passes: list[Pass]
    generation: Generation


@dataclasses.dataclass(frozen=True)
class HostMixture:
    """The mixture as the host needs it to choose data; read once per update."""

    shares_C: np.ndarray  # float32
    credit_C: np.ndarray  # float32
    position_C: np.ndarray  # int64: rows consumed of each stream
    last_update: int
    next_update: int


def read_mixture(state: TrainState) -> HostMixture:
    mixture = state.mixture
    host = HostMixture(
        shares_C=np.asarray(mixture.shares_C, np.float32),
        credit_C=np.asarray(mixture.credit_C, np.float32),
        position_C=np.asarray(mixture.rows_C, np.int64),
        last_update=int(mixture.last_update),
        next_update=int(mixture.next_update),
    )
    check_same("the mixture", *dataclasses.astuple(host))
    return host


def next_slots(run: Run, host: HostMixture) -> tuple[dict, np.ndarray, HostMixture]:
    """Allocates slots to components and fetches their rows."""
    data = run.config.data
    counts_C, credit_C = allocate(host.shares_C, host.credit_C, data.num_slots)
    batch, position_C = next_batch(
        run.streams, host.position_C, counts_C, data.rows_per_slot, run.needed_SB
    )
    ability_C, _ = run.program.composition.parts
    batch["ability_S"] = ability_C[batch["ability_S"]]
    # The step stores these two, so that they and the rows they explain are saved
    # together.
    batch["credit_C"] = credit_C
    batch["rows_C"] = position_C.astype(np.int32)
    after = dataclasses.replace(host, credit_C=credit_C, position_C=position_C)
    return place(batch, run.mesh, run.program.model.rules), counts_C, after


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
    run: Run, held_out: HeldOut, state: TrainState, step: int
) -> tuple[TrainState, dict[str, float]]:
    """Measures every ability on its mix-val rows and moves the mixture."""
    composition, mixture = run.program.composition, state.mixture
    mix_val, update = held_out.mix_val, int(mixture.num_updates)
    if step not in (0, run.num_steps):
        mix_val = rotate(mix_val, update, run.config.mixture.mix_val_blocks)
    scores, metrics = evaluate_split(run, state.params, mix_val, "mix_val")
    accuracy_K, generated = generate_mix_val(run, held_out, state, update)
    measured = measure(
        scores,
        np.asarray(mixture.val_loss_sum_KN),
        np.asarray(mixture.best_loss_sum_KN),
        composition.tier_KN,
        composition.size_KT.shape[1],
        accuracy_K if run.config.mixture.accuracy == "generated" else None,
    )
    extra, costs = run_passes(held_out.passes, state, step)
    mixture = run.program.update_mixture(mixture, measured, extra, np.int32(step))
    # Computed outside the step, but laid out as the step returns it.
    mixture = match_sharding(mixture, state.mixture)
    metrics |= generated | costs
    metrics |= mixture_metrics(composition, run.abilities, measured, mixture)
    return dataclasses.replace(state, mixture=mixture), metrics


def generate_mix_val(
    run: Run, held_out: HeldOut, state: TrainState, update: int
) -> tuple[np.ndarray, dict[str, float]]:
    """Accuracy of generated replies if it is due, else nan; and metrics."""
    if not is_due(run, update, int(state.step)):
        return np.full(len(run.abilities), np.nan), {}
    started = time.perf_counter()
    generation = held_out.generation
    accuracy_K, metrics = mix_val_accuracy(run, generation, state.params, update)
    return accuracy_K, metrics | {"run/generate_s": time.perf_counter() - started}


def evaluate(
    run: Run, held_out: HeldOut, state: TrainState, step: int
) -> tuple[TrainState, dict[str, float]]:
    """The evaluation due at a step. The test split is read at the two ends only."""
    started = time.perf_counter()
    state, metrics = evaluate_and_update(run, held_out, state, step)
    if step in (0, run.num_steps):
        test = place_split(run, "test")
        metrics |= evaluate_split(run, state.params, test, "test")[1]
        if can_reply(run, step):
            generating = time.perf_counter()
            metrics |= test_accuracy(run, held_out.generation, state.params)
            seconds = time.perf_counter() - generating
            metrics["run/generate_s"] = metrics.get("run/generate_s", 0.0) + seconds
    seconds = time.perf_counter() - started - metrics["run/extra_s"]
    return state, metrics | {"run/eval_s": seconds}


def roll_back(
    run: Run, state: TrainState, checkpoints: ocp.training.Checkpointer
) -> TrainState:
    """The parameters and optimizer state that the rule asks to go on from."""
    rollback = run.program.composition.rule.rollback
    target = -1 if rollback is None else int(rollback(state.mixture.rule))
    if target < 0 or target >= int(state.step):
        return state
    wait_for_save(checkpoints, run.warn)
    earlier = checkpoint.load(checkpoints, target, abstract_state(run))
    run.console.print(f"Step {int(state.step)}: back to the parameters of {target}.")
    return dataclasses.replace(
        state, params=earlier.params, opt_state=earlier.opt_state
    )


def save_due(
    run: Run,
    checkpoints: ocp.training.Checkpointer,
    step: int,
    evaluated: bool,
) -> bool:
    """By cadence; and at every update if the rule may come back to it."""
    reach = run.program.composition.rule.reach
    at_end = step == run.num_steps
    return checkpoint.is_due(checkpoints, step, at_end or (evaluated and reach > 0))


def save(
    run: Run,
    checkpoints: ocp.training.Checkpointer,
    step: int,
    state: TrainState,
    losses: dict[str, float],
) -> None:
    """Saves, or goes on without if the disk is full."""
    wait_for_save(checkpoints, run.warn)  # one that began earlier fails only here
    checkpoint.save(checkpoints, step, state, run.metadata(), losses)


def leave(
    run: Run,
    checkpoints: ocp.training.Checkpointer,
    log: StepLog,
    state: TrainState,
    step: int,
) -> NoReturn:
    """Saves and ends the run before its time."""
    log.flush()
    if checkpoint.is_due(checkpoints, step, at_end=True):
        save(run, checkpoints, step, state, {})
    unsaved = find_unsaved(checkpoints, step, run.warn)
    if unsaved is not None:
        raise unsaved
    raise preemption.Preempted(
        f"{run.workdir}: saved at step {step}; the same command goes on"
    )


def restore_or_init(run: Run, checkpoints: ocp.training.Checkpointer) -> TrainState:
    state = restore(checkpoints, abstract_state(run), run.report)
    if state is None and run.config.run.continue_from:
        return continue_run(run)
    if state is None:
        return jit_init(run)
    step = int(state.step)
    run.console.print(f"Resuming {run.workdir} at step {step}.")
    saved = checkpoints.metadata(step).custom_metadata
    found = changes(saved if isinstance(saved, dict) else {}, run.metadata())
    if found:
        run.report(
            f"warning: changed since step {step} was saved: {', '.join(found)}. The "
            "run goes on; its numbers may differ from those without the change."
        )
    return state


def run_steps(
    run: Run,
    state: TrainState,
    checkpoints: ocp.training.Checkpointer,
    writer: Writer,
    progress: Progress,
    told_to_end: Callable[[int], bool],
) -> TrainState:
    """Trains from `state` to the last step; the order is the module's subject."""
    mix_val = place_split(run, "mix_val")
    held_out = HeldOut(mix_val, make_passes(run, mix_val), open_generation(run))
    host = read_mixture(state)
    high_K, low_K = np.asarray(state.mixture.tokens_K2, np.float64).T
    log = StepLog(run, writer, progress, high_K * 2.0**32 + low_K)
    for step in range(int(state.step), run.num_steps + 1):
        if told_to_end(step):
            leave(run, checkpoints, log, state, step)
        losses: dict[str, float] = {}
        at_end = step == run.num_steps
        due = step >= host.next_update or at_end
        if due and host.last_update != step:
            log.flush()
            with progress.phase("evaluating"):
                state, metrics = evaluate(run, held_out, state, step)
            state = roll_back(run, state, checkpoints)
            host = read_mixture(state)
            log.write(step, metrics)
            losses = {n: metrics[f"mix_val/loss/{n}"] for n in run.abilities}
        if save_due(run, checkpoints, step, evaluated=bool(losses)):
            log.flush()  # raises if a loss was not finite: such a state is not saved
            with progress.phase("saving"):
                save(run, checkpoints, step, state, losses)
        if at_end:
            break
        batch, counts_C, host = next_slots(run, host)
        state, metrics = run.program.train_step(state, run.frozen, batch)
        log.defer(step + 1, metrics, counts_C, host.position_C)
    return state


def train(run: Run) -> dict[str, Any]:
    """Trains (or resumes) a run and returns its summary.

    Raises:
      FloatingPointError: a loss stopped being finite; names step and ability.
      InUseError: another process trains in the work directory.
      ValueError: no checkpoint can be read.
      NotSavedError: the disk is too full for the last state; its results were shown.
      Preempted: SIGTERM came, and the state is saved.
    """
    with held(run.workdir):
        return _train(run)


def _train(run: Run) -> dict[str, Any]:
    options = run.config.run
    set_aside_unlistable(run.workdir, run.report)
    with (
        jax.set_mesh(run.mesh),
        preemption.notice() as told_to_end,
        full_disk.closed(
            checkpoint.open_checkpoints(
                run.workdir, options.save_every, run.keep, run.best_of
            )
        ) as checkpoints,
    ):
        state = restore_or_init(run, checkpoints)
        resume_step = checkpoints.latest.step if checkpoints.latest else None
        writer: Writer = Nowhere()
        if is_first():
            writer = open_writers(
                run.workdir, run.config.logging, resume_step, run.plain_config
            )
        progress = Progress(run.num_steps, run.abilities, run.console, resume_step or 0)
        unwritten: list[dict[str, Any]] = []
        with written(run, writer, unwritten), progress:
            state = run_steps(run, state, checkpoints, writer, progress, told_to_end)
        unsaved = find_unsaved(checkpoints, run.num_steps, run.warn)
    with first_goes_first():  # who has closed metrics.jsonl, which all read
        summary = finish(run, state, unwritten)
    if unsaved is not None:
        raise unsaved
    return summary


@contextlib.contextmanager
def written(
    run: Run, writer: Writer, unwritten: list[dict[str, Any]]
) -> Iterator[None]:
    """Closes the writer at the end; rows without space go to `unwritten`."""
    try:
        yield
    finally:
        unwritten += writer.close() or ()
        if unwritten:
            first, last = unwritten[0]["step"], unwritten[-1]["step"]
            run.warn(
                f"warning: no space left in {run.workdir}: metrics.jsonl lacks "
                f"{len(unwritten)} rows, of steps {first} to {last}."
            )
