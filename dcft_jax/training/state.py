"""Everything that must survive a crash, as one frozen pytree."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dcft_jax.conflict import Engine, EngineState, init_engine
from dcft_jax.mixture import MixtureRule

register = jax.tree_util.register_dataclass


@register
@dataclasses.dataclass(frozen=True)
class MixtureState:
    """The mixture and what its rule may look at.

    `rows_K` counts the rows that each ability has consumed. It is also the
    position in that ability's stream, so restoring it resumes the data.
    """

    rule: Any
    credit_K: jax.Array  # float32: what allocation still owes each ability
    rows_K: jax.Array  # int32
    tokens_K2: jax.Array  # uint32 [high, low] words: response tokens trained on
    train_loss_sum_K: jax.Array  # float32, since the last update
    train_count_K: jax.Array  # float32, since the last update
    initial_loss_K: jax.Array  # float32, mix-val at step 0; nan before
    val_loss_sum_KN: jax.Array  # float32, of each mix-val example at last_update
    last_update: jax.Array  # int32 step; -1: never


@register
@dataclasses.dataclass(frozen=True)
class TrainState:
    step: jax.Array  # int32: optimizer steps taken
    params: Any
    opt_state: optax.OptState
    mixture: MixtureState
    conflict: EngineState


def init_mixture(
    rule: MixtureRule, prior_K: jax.Array, num_examples: int
) -> MixtureState:
    """The mixture before anything was measured; N = mix-val examples per ability."""
    num_abilities = prior_K.shape[0]
    zeros_K = jnp.zeros(num_abilities, jnp.float32)
    return MixtureState(
        rule=rule.init(prior_K),
        credit_K=zeros_K,
        rows_K=jnp.zeros(num_abilities, jnp.int32),
        tokens_K2=jnp.zeros((num_abilities, 2), jnp.uint32),
        train_loss_sum_K=zeros_K,
        train_count_K=zeros_K,
        initial_loss_K=jnp.full(num_abilities, jnp.nan, jnp.float32),
        val_loss_sum_KN=jnp.full((num_abilities, num_examples), jnp.nan, jnp.float32),
        last_update=jnp.int32(-1),
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
