"""Passes over data that a mixture rule asks for beyond training and evaluation.

What they cost is charged to the run: `run/extra_s`, and `run/extra_tokens` in training
tokens, a forward pass being a third of a step.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dcft_jax.conflict import Engine, Problem, measured_gramian
from dcft_jax.data import ROW_FIELDS, Rows, next_batch
from dcft_jax.mixture import REFERENCE_MODEL, TRANSFER, VIRTUAL_STEP
from dcft_jax.models import ModelConfig, score_responses
from dcft_jax.reporting import load_history
from dcft_jax.sharding import needed_rows, num_parts, place, replicate
from dcft_jax.training.held_out import EvalSet
from dcft_jax.training.program import make_metric
from dcft_jax.training.reference import load_reference
from dcft_jax.training.run import Run, abstract_state
from dcft_jax.training.state import TrainState
from dcft_jax.training.step import LossFn

FORWARD = 1 / 3  # of the work of a step on the same tokens

# `(state, step) -> (fields of the feedback, training tokens that it cost)`
Pass = Callable[[TrainState, int], tuple[dict[str, Any], float]]


def make_passes(run: Run, mix_val: list[EvalSet]) -> list[Pass]:
    """The passes that the run's rule needs, in any order.

    Raises:
      ValueError, FileNotFoundError: the reference model or the guard's run do not fit.
    """
    needs = run.program.composition.rule.needs
    passes: list[Pass] = []
    if TRANSFER in needs:
        passes.append(_transfer_pass(run))
    if VIRTUAL_STEP in needs:
        passes.append(_virtual_pass(run))
    if REFERENCE_MODEL in needs:
        passes.append(_reference_pass(run, mix_val))
    if run.config.mixture.guard_run:
        passes.append(_static_curve(run))
    return passes


def run_passes(
    passes: list[Pass], state: TrainState, step: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """Fields of the feedback, and what they cost as metrics."""
    started, fields, tokens = time.perf_counter(), {}, 0.0
    for one in passes:
        new, cost = one(state, step)
        fields |= new
        tokens += cost
    jax.block_until_ready(fields)
    seconds = time.perf_counter() - started
    return fields, {"run/extra_s": seconds, "run/extra_tokens": tokens}


def _transfer_pass(run: Run) -> Pass:
    """One slot of train rows and one of mix-val rows of every ability."""
    program, num_abilities = run.program, len(run.abilities)
    rows, data = run.config.data.rows_per_slot, run.config.data
    metric = make_metric(run.config)
    slots = num_parts(program.model.rules, "slot", run.mesh)
    padding = -2 * num_abilities % slots  # slots divide over the mesh
    shape = (2 * num_abilities + padding, rows)
    needed_SB = needed_rows(shape, run.mesh, program.model.rules)[:num_abilities]
    held_out = [run.data.rows[name]["mix_val"] for name in run.abilities]
    measure = jax.jit(
        partial(transfer, program.engine, program.loss_fn),
        static_argnums=4,
    )

    def one(state: TrainState, step: int):
        train = _next_rows(run, state, np.ones(num_abilities, int), needed_SB)
        first = int(state.mixture.num_updates) * rows
        batch = {
            name: np.concatenate(
                [
                    train[f"{name}_SBL"],
                    np.stack([_rotating(r, name, first, rows) for r in held_out]),
                    np.zeros((padding, rows, data.seq_len), np.int32),
                ]
            )
            for name in ROW_FIELDS
        }
        placed = place(batch, run.mesh, program.model.rules)
        scale = metric(state.opt_state)
        transfer_KK = measure(state.params, run.frozen, scale, placed, num_abilities)
        tokens = (2 * num_abilities + padding) * rows * data.seq_len
        return {"transfer_KK": transfer_KK}, tokens

    return one


def transfer(
    engine: Engine,
    loss_fn: LossFn,
    params: Any,
    frozen: Any,
    scale: Any,
    slots: Any,
    size: int,
) -> jax.Array:
    """`<v_j, g_k>` float32 [K, K]: mix-val gradient of the row's, train gradient of the
    column's ability, of the mean loss per response token; nan where one has no tokens.

    Args:
      slots: [S, B, L]; the first K hold train rows, the next K mix-val rows.
      size: K.
    """
    problem = Problem(
        loss_fn=loss_fn,
        params=params,
        frozen=frozen,
        slots=slots,
        ability_S=jnp.arange(jax.tree.leaves(slots)[0].shape[0]),
        weights_K=jnp.ones(size),
        scale=scale,
    )
    _, count_S, gram_SS = measured_gramian(engine, problem)
    mean_SS = gram_SS / count_S / count_S[:, None]  # 0 / 0: nan
    return mean_SS[size : 2 * size, :size]


def _virtual_pass(run: Run) -> Pass:
    """A whole batch of each ability, and one step on it that is not kept."""
    program, num_abilities = run.program, len(run.abilities)
    measure = jax.jit(partial(virtual_step, program.loss_fn, program.optimizer))

    def one(state: TrainState, step: int):
        losses = []
        for k in range(num_abilities):
            counts_K = np.where(
                np.arange(num_abilities) == k, run.config.data.num_slots, 0
            )
            batch = _next_rows(run, state, counts_K, run.needed_SB)
            slots = {name: batch[f"{name}_SBL"] for name in ROW_FIELDS}
            placed = place(slots, run.mesh, program.model.rules)
            losses.append(measure(state.params, run.frozen, state.opt_state, placed))
        before_K, after_K = (jnp.stack(x) for x in zip(*losses, strict=True))
        tokens = run.rows_per_step * run.config.data.seq_len
        return (
            {"virtual_before_K": before_K, "virtual_after_K": after_K},
            num_abilities * tokens * (1 + FORWARD),
        )

    return one


def virtual_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    params: Any,
    frozen: Any,
    opt_state: optax.OptState,
    slots: Any,
) -> tuple[jax.Array, jax.Array]:
    """Loss per response token of a batch before and after a step on it, in nats."""

    def mean_loss(params):
        loss_S, count_S = jax.vmap(lambda slot: loss_fn(params, frozen, slot))(slots)
        return jnp.sum(replicate(loss_S)) / jnp.sum(replicate(count_S))

    before, gradient = jax.value_and_grad(mean_loss)(params)
    updates, _ = optimizer.update(gradient, opt_state, params)
    return before, mean_loss(optax.apply_updates(params, updates))


def _reference_pass(run: Run, mix_val: list[EvalSet]) -> Pass:
    """Another model's losses on the mix-val tokens, computed once."""
    model = run.program.model
    token_losses = jax.jit(partial(_token_losses, model))
    reference = load_reference(
        run.config,
        run.data.tokenizer.content_hash,
        run.base_hash,
        abstract_state(run).params,
    )
    reference_losses = [
        [token_losses(run.full(reference), batch)[0] for batch, *_ in batches]
        for batches in mix_val
    ]
    del reference

    @jax.jit
    def excess(params, batch, reference_SBL):
        nll_SBL, mask_SBL = token_losses(params, batch)
        more_SBL = jnp.where(mask_SBL, jnp.maximum(nll_SBL - reference_SBL, 0.0), 0.0)
        return replicate(jnp.sum(more_SBL)), replicate(jnp.sum(mask_SBL))

    def one(state: TrainState, step: int):
        excess_K, num_batches = [], 0
        for batches, references in zip(mix_val, reference_losses, strict=True):
            sums = [
                excess(run.full(state.params), batch, reference)
                for (batch, *_), reference in zip(batches, references, strict=True)
            ]
            total, count = (sum(x) for x in zip(*sums, strict=True))
            excess_K.append(total / count)
            num_batches += len(batches)
        tokens = num_batches * run.rows_per_step * run.config.data.seq_len
        return {"excess_loss_K": jnp.stack(excess_K)}, tokens * FORWARD

    return one


def _token_losses(model: ModelConfig, params: Any, batch: dict[str, jax.Array]):
    rows = {name: batch[name] for name in ROW_FIELDS}
    nll_SBL, _, mask_SBL = jax.vmap(partial(score_responses, model, params))(rows)
    return nll_SBL, mask_SBL


def _static_curve(run: Run) -> Pass:
    """Mix-val losses of a run at the prior, between its evaluations by line."""
    history = load_history(run.config.mixture.guard_run)
    curves = []
    for name in run.abilities:
        loss_T = history.scalar(f"mix_val/loss/{name}")
        stderr_T = history.scalar(f"mix_val/loss_stderr/{name}")
        known_T = np.isfinite(loss_T)
        if not known_T.any():
            raise ValueError(
                f"config.mixture.guard_run = {run.config.mixture.guard_run!r}: that "
                f"run has no mix-val losses of {name!r}; name a run on the abilities "
                f"{', '.join(run.abilities)}"
            )
        curves.append([x[known_T] for x in (history.step_T, loss_T, stderr_T)])

    def one(state: TrainState, step: int):
        pairs = [
            (np.interp(step, steps, loss), np.interp(step, steps, stderr))
            for steps, loss, stderr in curves
        ]
        loss_K, stderr_K = np.array(pairs, np.float32).T
        return {"static_loss_K": loss_K, "static_stderr_K": stderr_K}, 0.0

    return one


def _next_rows(
    run: Run, state: TrainState, counts_K: np.ndarray, needed_SB: np.ndarray
) -> dict:
    """Slots of the rows that come next; they are read, not consumed.

    An ability's rows are those of its component with the largest share.
    """
    ability_C, _ = run.program.composition.parts
    shares_C = np.asarray(state.mixture.shares_C)
    counts_C = np.zeros(len(ability_C), int)
    for k, count in enumerate(counts_K):
        own = np.flatnonzero(ability_C == k)
        counts_C[own[np.argmax(shares_C[own])]] = count
    position_C = np.asarray(state.mixture.rows_C, np.int64)
    batch, _ = next_batch(
        run.streams, position_C, counts_C, run.config.data.rows_per_slot, needed_SB
    )
    return batch


def _rotating(rows: Rows, name: str, first: int, number: int) -> np.ndarray:
    """[B, L]: the next rows of a held-out set, from the start again at its end."""
    index = (first + np.arange(number)) % len(rows)
    return np.asarray(getattr(rows, f"{name}_NL")[index], np.int32)
