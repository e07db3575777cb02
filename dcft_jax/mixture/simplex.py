"""Staying on the simplex: floors and caps."""

import jax
import jax.numpy as jnp
from jax import lax


def mix_floor(weights_K: jax.Array, floor: float) -> jax.Array:
    """`(1 - floor) w + floor / K`: no weight is below `floor / K`."""
    return (1.0 - floor) * weights_K + floor / len(weights_K)


def log_of(weights_K: jax.Array) -> jax.Array:
    """The normalised logarithm of weights; finite where a weight is 0."""
    weights_K = jnp.asarray(weights_K, jnp.float32)
    return jax.nn.log_softmax(jnp.log(jnp.maximum(weights_K, 1e-12)))


def cap(weights_K: jax.Array, max_weight_K: jax.Array) -> jax.Array:
    """Projects weights onto the simplex below caps, keeping the ratios of the rest.

    `min(cap, t * w)` with the t for which the sum is 1: the projection in relative
    entropy. No weight falls except to its cap. Needs `sum(max_weight_K) >= 1`.
    Weights that violate no cap come back unchanged.
    """
    # A zero weight could never take over what the caps of the others set free.
    filled_K = jnp.maximum(weights_K, 1e-12)

    def raise_free(_, carry):
        capped_K, scale = carry
        capped_K |= filled_K * scale > max_weight_K
        taken = jnp.sum(jnp.where(capped_K, max_weight_K, 0.0))
        rest = jnp.sum(jnp.where(capped_K, 0.0, filled_K))
        scale = jnp.maximum(1.0 - taken, 0.0) / jnp.where(rest > 0, rest, 1.0)
        return capped_K, scale

    # Each round caps at least one more weight or changes nothing.
    start = (weights_K > max_weight_K, jnp.ones((), weights_K.dtype))
    capped_K, scale = lax.fori_loop(0, len(weights_K), raise_free, start)
    bounded_K = jnp.minimum(filled_K * scale, max_weight_K)
    projected_K = jnp.where(capped_K, max_weight_K, bounded_K)
    return jnp.where(jnp.any(weights_K > max_weight_K), projected_K, weights_K)
