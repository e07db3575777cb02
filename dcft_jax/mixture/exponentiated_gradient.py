"""The step that most rules share."""

import jax
import jax.numpy as jnp

# Beyond these a weight is nothing, and could only be slow to come back.
LOWEST_LOG_WEIGHT = -30.0
LARGEST_STEP = 50.0


def exponentiated_gradient(log_weights_K: jax.Array, step_K: jax.Array) -> jax.Array:
    """`w_k <- w_k exp(step_k)`, normalised, in log space (Kivinen and Warmuth 1997).

    An ability whose step is not finite keeps its weight; the others share the rest.
    """
    known_K = jnp.isfinite(step_K)
    # Only differences count; this one cannot overflow.
    below_K = step_K - jnp.max(step_K, where=known_K, initial=-jnp.inf)
    moved_K = log_weights_K + jnp.maximum(below_K, -LARGEST_STEP)
    before = jax.nn.logsumexp(log_weights_K, where=known_K)
    after = jax.nn.logsumexp(moved_K, where=known_K)
    log_K = jnp.where(known_K, moved_K - after + before, log_weights_K)
    return jax.nn.log_softmax(jnp.maximum(log_K, LOWEST_LOG_WEIGHT))
