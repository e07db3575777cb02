"""One optimizer step: per-ability gradients, conflicts resolved, one update.

    params, batch -> per-slot loss and gradient -> Gramian -> resolver
                  -> one combined gradient -> optax -> params

Pure: everything it reads is an argument and everything it changes is returned.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from dcft_jax.conflict import (
    Diagnostics,
    Resolver,
    ability_gramian,
    combine,
    diagnose,
    slot_coefficients,
    slot_gramian,
    spread_slots,
)
from dcft_jax.mixture import MixtureRule, objective_weights
from dcft_jax.models import ModelConfig, score_responses
from dcft_jax.sharding import match_sharding, replicate
from dcft_jax.training.state import MixtureState, TrainState, add_wide

Batch = dict[str, jax.Array]
ROW_FIELDS = ("tokens", "loss_mask", "segments", "positions")
LossFn = Callable[[Any, Any, Batch], tuple[jax.Array, jax.Array]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepMetrics:
    loss_sum_K: jax.Array  # float32 nats, over the response tokens of the step
    count_K: jax.Array  # float32 response tokens; 0: the ability was absent
    grad_norm: jax.Array  # of the resolved gradient, before clipping
    conflict: Diagnostics


def slot_loss(
    config: ModelConfig, params: Any, frozen: Any, slot: Batch
) -> tuple[jax.Array, jax.Array]:
    """Summed response-token loss of one slot, in nats, and how many tokens.

    A sum and a count, never a mean: means of means weigh tokens unequally.
    """
    del frozen  # the decoder trains all of its parameters
    nll_BL, _, mask_BL = score_responses(config, params, slot)
    return jnp.sum(nll_BL), jnp.sum(mask_BL, dtype=jnp.float32)


def slot_gradients(
    loss_fn: LossFn, params: Any, frozen: Any, rows: Batch, accumulate: int
) -> tuple[jax.Array, jax.Array, Any]:
    """Loss sums, token counts and gradients of the sums, one per slot.

    Slots hold different rows, so the vmap costs the FLOPs of one plain batch.
    Gradients of sums add over micro-batches; Gramians would not.
    """

    def one_slot(slot: Batch) -> tuple[jax.Array, jax.Array, Any]:
        value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, count), grads = value_and_grad(params, frozen, slot)
        return loss, count, grads

    all_slots = jax.vmap(one_slot)
    if accumulate == 1:
        return all_slots(rows)

    def split(x_SBL: jax.Array) -> jax.Array:
        return jnp.moveaxis(_split_rows(x_SBL, accumulate), 2, 0)

    micro_batches = jax.tree.map(split, rows)
    first = all_slots(jax.tree.map(lambda x: x[0], micro_batches))
    rest = jax.tree.map(lambda x: x[1:], micro_batches)

    def add(total, micro_batch):
        return jax.tree.map(jnp.add, total, all_slots(micro_batch)), None

    return jax.lax.scan(add, first, rest)[0]


def _split_rows(x_SBL: jax.Array, parts: int) -> jax.Array:
    """[S, B, L] -> [S, B / parts, parts, L], each device splitting its own rows."""
    num_slots, num_rows, length = x_SBL.shape
    slot_axis, row_axis, _ = jax.typeof(x_SBL).sharding.spec
    return jax.lax.reshape(
        x_SBL,
        (num_slots, num_rows // parts, parts, length),
        out_sharding=P(slot_axis, row_axis, None, None),
    )


def _count_step(
    mixture: MixtureState, batch: Batch, loss_K: jax.Array, count_K: jax.Array
) -> MixtureState:
    num_abilities = count_K.shape[0]
    slots_K = jnp.bincount(batch["ability_S"], length=num_abilities)
    rows_per_slot = batch["tokens_SBL"].shape[1]
    return dataclasses.replace(
        mixture,
        credit_K=batch["credit_K"],
        rows_K=mixture.rows_K + slots_K.astype(jnp.int32) * rows_per_slot,
        tokens_K2=add_wide(mixture.tokens_K2, count_K),
        train_loss_sum_K=mixture.train_loss_sum_K + loss_K,
        train_count_K=mixture.train_count_K + count_K,
    )


def train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    resolver: Resolver,
    rule: MixtureRule,
    accumulate: int,
    state: TrainState,
    frozen: Any,
    batch: Batch,
) -> tuple[TrainState, StepMetrics]:
    """Takes one step.

    Args:
      batch: int32 `tokens_SBL`, `segments_SBL`, `positions_SBL`, bool
        `loss_mask_SBL`; int32 `ability_S`; float32 `credit_K`, what the allocation
        that chose the slots carries over.

    Returns:
      The new state, and what to log.
    """
    mixture = state.mixture
    num_abilities = mixture.rows_K.shape[0]
    rows = {name: batch[f"{name}_SBL"] for name in ROW_FIELDS}
    loss_S, count_S, grads = slot_gradients(
        loss_fn, state.params, frozen, rows, accumulate
    )
    loss_S, count_S = replicate(loss_S), replicate(count_S)
    grads = spread_slots(grads)
    gram_KK, _, share_KS = ability_gramian(
        slot_gramian(grads), count_S, batch["ability_S"], num_abilities
    )
    weights_K = objective_weights(rule.weights(mixture.rule), loss_S.shape[0])
    coefficients_K, resolver_state = resolver.resolve(
        gram_KK, weights_K, state.resolver
    )
    gradient = combine(grads, slot_coefficients(coefficients_K, share_KS))
    gradient = match_sharding(gradient, state.params)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)

    loss_K, count_K = (
        jax.ops.segment_sum(x_S, batch["ability_S"], num_abilities)
        for x_S in (loss_S, count_S)
    )
    new_state = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        mixture=_count_step(mixture, batch, loss_K, count_K),
        resolver=resolver_state,
    )
    metrics = StepMetrics(
        loss_sum_K=loss_K,
        count_K=count_K,
        grad_norm=optax.tree.norm(gradient),
        conflict=diagnose(gram_KK, weights_K, coefficients_K),
    )
    return new_state, metrics


def make_train_step(
    model: ModelConfig,
    optimizer: optax.GradientTransformation,
    resolver: Resolver,
    rule: MixtureRule,
    accumulate: int = 1,
) -> Callable[[TrainState, Any, Batch], tuple[TrainState, StepMetrics]]:
    """`(state, frozen, batch) -> (state, metrics)`, to be jitted by the caller."""
    loss_fn = partial(slot_loss, model)
    return partial(train_step, loss_fn, optimizer, resolver, rule, accumulate)
