"""Reading measurements of which some are missing, and averaging them over updates."""

import jax
import jax.numpy as jnp

from dcft_jax.mixture.feedback import Feedback

# A loss beyond this is a broken measurement; it must not become inf in a sum.
MAX_LOSS = 1e6


def known(feedback: Feedback, *values_K: jax.Array) -> jax.Array:
    """Where an ability was observed and all these values were measured."""
    known_K = feedback.observed_K
    for value_K in values_K:
        known_K = known_K & jnp.isfinite(value_K)
    return known_K


def bounded(values_K: jax.Array) -> jax.Array:
    return jnp.clip(values_K, -MAX_LOSS, MAX_LOSS)


def mean_where(known_K: jax.Array, values_K: jax.Array) -> jax.Array:
    """The mean over the known ones; 0 if there is none."""
    total = jnp.sum(jnp.where(known_K, values_K, 0.0))
    return total / jnp.maximum(jnp.sum(known_K), 1)


def or_average(known_K: jax.Array, values_K: jax.Array) -> jax.Array:
    """Abilities without a value count as average."""
    return jnp.where(known_K, values_K, mean_where(known_K, values_K))


def gain(count_K: jax.Array, decay: float) -> jax.Array:
    """Weight of the n-th value in a moving average that is free of its start.

    `(1 - decay) / (1 - decay^n)`: 1 for the first, `1 - decay` in the long run.
    """
    count_K = jnp.maximum(count_K, 1)
    return (1.0 - decay) / (1.0 - jnp.float32(decay) ** count_K)


def from_zero(average_K: jax.Array, count_K: jax.Array, decay: float) -> jax.Array:
    """What averages free of their start would be, had they all started at 0.

    The papers' `q <- decay q + (1 - decay) r`, `q = 0` at first, for abilities that
    were measured every time. One measured less often is not lower for it, and one
    without any measurement counts as average.
    """
    started = 1.0 - jnp.float32(decay) ** jnp.max(count_K)
    return started * or_average(count_K > 0, average_K)
