"""Everything that must survive a crash, as one frozen pytree."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dcft_jax.conflict import Engine, EngineState, init_engine
from dcft_jax.mixture import History, empty_history
from dcft_jax.training.composition import Composition, weights_and_shares

register = jax.tree_util.register_dataclass


@register
@dataclasses.dataclass(frozen=True)
class TrainSums:
    """Sums over the steps since the last update, float32, and their numbers."""

    loss_K: jax.Array
    count_K: jax.Array  # response tokens
    gram_KK: jax.Array  # of the abilities' gradients, over the steps with both
    gram_count_KK: jax.Array
    signal_K: jax.Array  # unbiased squared norms of the gradients, where measured
    noise_K: jax.Array  # squared error of the gradient of one step
    noise_count_K: jax.Array


@register
@dataclasses.dataclass(frozen=True)
class MixtureState:
    """The mixture and what its rule may look at.

    C components: the difficulty tiers of all abilities. `rows_C` counts the rows that
    each has given. It is also the position in its stream, so restoring it resumes the
    data. `N` mix-val examples per ability, nan where it has fewer.
    """

    rule: Any
    tier_rule: Any
    weights_K: jax.Array  # float32: what the rule said last, repetition capped
    shares_C: jax.Array  # float32: of the slots, what allocation aims at
    credit_C: jax.Array  # float32: what allocation still owes each component
    rows_C: jax.Array  # int32
    tokens_K2: jax.Array  # uint32 [high, low] words: response tokens trained on
    nonfinite_K: jax.Array  # int32: steps in which a loss or gradient was not finite
    nonfinite_row_K: jax.Array  # int32: the last so many of its steps in a row
    train: TrainSums
    initial_loss_K: jax.Array  # float32, mix-val at step 0; nan before
    initial_loss_KT: jax.Array
    val_loss_sum_KN: jax.Array  # float32, of each mix-val example at last_update
    best_loss_sum_KN: jax.Array  # ... at the best evaluation of its ability
    best_step_K: jax.Array  # int32, when that was; -1: never
    history: History  # of the mix-val losses, by step
    num_updates: jax.Array  # int32
    last_update: jax.Array  # int32 step; -1: never
    next_update: jax.Array  # int32 step


@register
@dataclasses.dataclass(frozen=True)
class TrainState:
    step: jax.Array  # int32: optimizer steps taken
    params: Any
    opt_state: optax.OptState
    mixture: MixtureState
    conflict: EngineState


def init_sums(num_abilities: int) -> TrainSums:
    def zeros(*shape: int) -> jax.Array:
        return jnp.zeros(shape, jnp.float32)

    k = num_abilities
    return TrainSums(
        loss_K=zeros(k),
        count_K=zeros(k),
        gram_KK=zeros(k, k),
        gram_count_KK=zeros(k, k),
        signal_K=zeros(k),
        noise_K=zeros(k),
        noise_count_K=zeros(k),
    )


def init_mixture(composition: Composition, num_examples: int) -> MixtureState:
    """The mixture before anything was measured; N = mix-val examples per ability."""
    size_KT = composition.size_KT
    (num_abilities, num_tiers), num_components = size_KT.shape, composition.num_parts
    rule = composition.rule.init(jnp.asarray(composition.prior_K))
    tier_rule = composition.tier_rule.init(jnp.asarray(size_KT))
    credit_C = jnp.zeros(num_components, jnp.float32)
    rows_C = jnp.zeros(num_components, jnp.int32)
    weights_K, shares_C = weights_and_shares(
        composition, rule, tier_rule, rows_C, credit_C, jnp.int32(0)
    )

    def unknown(*shape: int) -> jax.Array:
        return jnp.full(shape, jnp.nan, jnp.float32)

    return MixtureState(
        rule=rule,
        tier_rule=tier_rule,
        weights_K=weights_K,
        shares_C=shares_C,
        credit_C=credit_C,
        rows_C=rows_C,
        tokens_K2=jnp.zeros((num_abilities, 2), jnp.uint32),
        nonfinite_K=jnp.zeros(num_abilities, jnp.int32),
        nonfinite_row_K=jnp.zeros(num_abilities, jnp.int32),
        train=init_sums(num_abilities),
        initial_loss_K=unknown(num_abilities),
        initial_loss_KT=unknown(num_abilities, num_tiers),
        val_loss_sum_KN=unknown(num_abilities, num_examples),
        best_loss_sum_KN=unknown(num_abilities, num_examples),
        best_step_K=jnp.full(num_abilities, -1, jnp.int32),
        history=empty_history(num_abilities),
        num_updates=jnp.int32(0),
        last_update=jnp.int32(-1),
        next_update=jnp.int32(0),
    )


def init_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    engine: Engine,
    mixture: MixtureState,
) -> TrainState:
    return TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state=optimizer.init(params),
        mixture=mixture,
        conflict=init_engine(engine),
    )


def add_wide(total_K2: jax.Array, addend_K: jax.Array) -> jax.Array:
    """Adds to counters of two 32-bit words: float32 stops counting at 2^24."""
    low_K = total_K2[:, 1] + addend_K.astype(jnp.uint32)
    carry_K = (low_K < total_K2[:, 1]).astype(jnp.uint32)
    return jnp.stack([total_K2[:, 0] + carry_K, low_K], axis=1)


def wide_to_float(total_K2: jax.Array) -> jax.Array:
    high_K, low_K = total_K2[:, 0], total_K2[:, 1]
    return high_K.astype(jnp.float32) * 2.0**32 + low_K.astype(jnp.float32)
