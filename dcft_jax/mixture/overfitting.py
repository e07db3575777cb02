"""Abilities that only learn their train rows by heart give up their weight."""

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
# A rise of which train rows have at least this share is no overfitting.
SHARED = 0.5
RECOVERED = 0.5  # of the rise that counts
LEAST_KEPT = 2.0**-10
MAX_LOSS = 1e6  # a broken measurement must not become inf in a difference


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OverfitState:
    num_rises_K: jax.Array  # int32, how many rises were measured
    train_loss_K: jax.Array  # float32, when the held-out loss was best; 0 if unknown
    trained_K: jax.Array  # bool, whether that is known
    streak_K: jax.Array  # int32, updates in a row with a significant rise
    flagged_K: jax.Array  # bool
    kept_K: jax.Array  # float32, in (0, 1]: share of its weight that it keeps


def init_overfit(num_abilities: int) -> OverfitState:
    return OverfitState(
        num_rises_K=jnp.zeros(num_abilities, jnp.int32),
        train_loss_K=jnp.zeros(num_abilities, jnp.float32),
        trained_K=jnp.zeros(num_abilities, bool),
        streak_K=jnp.zeros(num_abilities, jnp.int32),
        flagged_K=jnp.zeros(num_abilities, bool),
        kept_K=jnp.ones(num_abilities, jnp.float32),
    )


def watch(feedback: Feedback, state: OverfitState) -> OverfitState:
    """Flags an ability whose loss rises on held-out rows and not on train rows.

    The rise is that over the best evaluation so far, on the same rows, less what the
    loss on train rows rose since. It counts from `2 + sqrt(log n)` standard errors on,
    because the best of n evaluations looks better than it is by up to `sqrt(2 log n)`
    errors of one of them, and from 2 % of what there was to learn; two in a row flag.
    Where train rows have half of the rise, the ability is being forgotten or its data
    became harder: it needs its weight, and there is no flag. The flag also goes when
    the rise is half of what counts, which training on the others may bring about.
    Without a train loss nothing is flagged.

    The share of its weight that a flagged ability keeps halves with every update, and
    doubles again without the flag: all at once it would be forgotten, which costs more
    than what it overfits.
    """
    rise_K, num_K = feedback.rise_K, jnp.maximum(state.num_rises_K, 1)
    errors_K = SIGNIFICANT + jnp.sqrt(jnp.log(num_K.astype(jnp.float32)))
    least_K = jnp.maximum(
        errors_K * feedback.rise_stderr_K, MIN_RISE * learnable_range(feedback)
    )
    known_K = feedback.observed_K & jnp.isfinite(rise_K) & jnp.isfinite(least_K)
    measured_K = feedback.observed_K & jnp.isfinite(feedback.train_loss_K)
    train_K = jnp.clip(feedback.train_loss_K, -MAX_LOSS, MAX_LOSS)
    comparable_K = measured_K & state.trained_K & known_K
    train_rise_K = jnp.maximum(train_K - state.train_loss_K, 0.0)
    shared_K = comparable_K & (rise_K > least_K) & (train_rise_K >= SHARED * rise_K)
    alone_K = rise_K - jnp.where(comparable_K, train_rise_K, 0.0)
    rises_K = (alone_K > least_K) & ~shared_K
    streak_K = jnp.where(rises_K, jnp.minimum(state.streak_K + 1, PATIENCE), 0)
    streak_K = jnp.where(comparable_K, streak_K, state.streak_K)
    over_K = known_K & (shared_K | (alone_K <= RECOVERED * least_K))
    # Without a rise there is nothing before this evaluation that was better.
    best_K = measured_K & (~(rise_K > 0) | ~state.trained_K)
    flagged_K = (state.flagged_K | (streak_K >= PATIENCE)) & ~over_K
    kept_K = jnp.where(flagged_K, state.kept_K / 2, jnp.minimum(2 * state.kept_K, 1.0))
    kept_K = jnp.maximum(kept_K, LEAST_KEPT)
    return OverfitState(
        num_rises_K=state.num_rises_K + known_K,
        train_loss_K=jnp.where(best_K, train_K, state.train_loss_K),
        trained_K=state.trained_K | measured_K,
        streak_K=jnp.where(over_K, 0, streak_K),
        flagged_K=flagged_K,
        kept_K=jnp.where(feedback.observed_K, kept_K, state.kept_K),
    )


def held_back(weights_K: jax.Array, kept_K: jax.Array, least: float) -> jax.Array:
    """Abilities keep a share of their weights, the others divide the rest as theirs.

    Those that keep all of it are the others. If there are none, nothing changes. A
    weight does not fall below `least` by this.
    """
    held_K = (kept_K < 1) & ~jnp.all(kept_K < 1)
    lowered_K = jnp.maximum(kept_K * weights_K, jnp.minimum(weights_K, least))
    rest = 1.0 - jnp.sum(jnp.where(held_K, lowered_K, 0.0))
    free = jnp.sum(jnp.where(held_K, 0.0, weights_K))
    raised_K = weights_K * rest / jnp.where(free > 0, free, 1.0)
    return jnp.where(jnp.any(held_K), jnp.where(held_K, lowered_K, raised_K), weights_K)
