"""Small pieces every resolver is made of."""

import jax
import jax.numpy as jnp
from jax import lax


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def masked(values_K: jax.Array, present_K: jax.Array) -> jax.Array:
    """float32, 0 where absent."""
    return jnp.where(present_K, values_K.astype(jnp.float32), 0.0)


def ridged(matrix_KK: jax.Array, ridge: jax.Array | float) -> jax.Array:
    return matrix_KK + ridge * jnp.eye(len(matrix_KK), dtype=jnp.float32)


def restrict(cosines_KK: jax.Array, kept_K: jax.Array) -> jax.Array:
    """The identity in rows and columns of the abilities that are not kept."""
    both_KK = kept_K[:, None] & kept_K
    return jnp.where(both_KK, cosines_KK, jnp.eye(len(kept_K), dtype=jnp.float32))


def length(combination_K: jax.Array, cosines_KK: jax.Array) -> jax.Array:
    """Euclidean length of a combination of the unit gradients."""
    square = jnp.sum(combination_K * matmul(cosines_KK, combination_K))
    return jnp.sqrt(jnp.maximum(square, 0.0))


def divide(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """0 where the denominator is."""
    safe = jnp.where(denominator == 0, 1.0, denominator)
    return jnp.where(denominator == 0, 0.0, numerator / safe)


def rescaled(shares_K: jax.Array, total: jax.Array) -> jax.Array:
    """Shares that are not negative, with `total` as their sum."""
    shares_K = divide(shares_K, jnp.max(shares_K, initial=0.0))
    return divide(shares_K, jnp.sum(shares_K)) * total


def require(sound: bool, where: str, name: str, value: object, allowed: str) -> None:
    if not sound:
        raise ValueError(f"{where}: {name} is {value!r}, expected {allowed}.")
