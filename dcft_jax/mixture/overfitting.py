"""Abilities that only get worse on held-out rows give up their weight."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dcft_jax.mixture.feedback import Feedback
from dcft_jax.mixture.signals import learnable_range

MODES = ("ignore", "floor", "exclude")
SIGNIFICANT = 2.0  # standard errors
# The error of a rise is that of the sampled rows. Between two evaluations the loss
# also moves with the last steps taken, by a few percent of what there was to learn.
MIN_RISE = 0.02
PATIENCE = 2  # updates in a row


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OverfitState:
    streak_K: jax.Array  # int32, updates in a row with a significant rise
    flagged_K: jax.Array  # bool


def init_overfit(num_abilities: int) -> OverfitState:
    return OverfitState(
        streak_K=jnp.zeros(num_abilities, jnp.int32),
        flagged_K=jnp.zeros(num_abilities, bool),
    )


def watch(feedback: Feedback, state: OverfitState) -> OverfitState:
    """Flags an ability whose loss has risen over its best, on the same rows.

    A rise counts from two standard errors and 2 % of what there was to learn on; two
    in a row flag. The flag goes when the ability is as good as at its best again, which
    training on the others may bring about.
    """
    floor_K = jnp.maximum(
        SIGNIFICANT * feedback.rise_stderr_K, MIN_RISE * learnable_range(feedback)
    )
    known_K = feedback.observed_K & jnp.isfinite(feedback.rise_K)
    rises_K = feedback.rise_K > floor_K
    streak_K = jnp.where(rises_K, state.streak_K + 1, 0)
    streak_K = jnp.where(known_K, jnp.minimum(streak_K, PATIENCE), state.streak_K)
    recovered_K = known_K & (feedback.rise_K <= 0)
    flagged_K = (state.flagged_K & ~recovered_K) | (streak_K >= PATIENCE)
    return OverfitState(streak_K, flagged_K)


def held_back(weights_K: jax.Array, flagged_K: jax.Array, most: float) -> jax.Array:
    """Flagged abilities get at most `most`, the others the rest in their proportions.

    If all are flagged there is nobody to give to, and nothing changes.
    """
    held_K = flagged_K & ~jnp.all(flagged_K)
    lowered_K = jnp.minimum(weights_K, most)
    rest = 1.0 - jnp.sum(jnp.where(held_K, lowered_K, 0.0))
    free = jnp.sum(jnp.where(held_K, 0.0, weights_K))
    raised_K = weights_K * rest / jnp.where(free > 0, free, 1.0)
    return jnp.where(jnp.any(held_K), jnp.where(held_K, lowered_K, raised_K), weights_K)
