"""Sums to more digits than float32 has.

What is left of a linear system after solving it is a small difference of large terms:
in float32 it would be rounding only, and a step of refinement would refine nothing. And
a long sum loses digits to every addition.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Pair = tuple[jax.Array, jax.Array]

_UPPER_HALF = np.uint32(0xFFFFF000)  # sign, exponent and 12 of 24 bits


def residual(matrix_KK: jax.Array, x_K: jax.Array, side_K: jax.Array) -> jax.Array:
    """`side - M x`, float32, as if computed with 48 bits and rounded at the end.

    Products are split into halves whose products are exact (Dekker 1971), and the
    rounding of every sum is carried along (Ogita, Rump and Oishi 2005, "Accurate sum
    and dot product").
    """
    parts = [a * b for a in _halves(matrix_KK) for b in _halves(-x_K[None, :])]
    return _accurate_sum(jnp.concatenate([*parts, side_K[:, None]], axis=1))


def _halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two numbers of 12 bits each that sum to x."""
    bits = lax.bitcast_convert_type(x, jnp.uint32) & _UPPER_HALF
    upper = lax.bitcast_convert_type(bits, jnp.float32)
    return upper, x - upper


def _accurate_sum(terms_KN: jax.Array) -> jax.Array:
    """Over the last axis; what every addition rounds away is added last."""
    start = (np.float32(0), np.float32(0))
    pairs = (terms_KN, jnp.zeros_like(terms_KN))
    total_K, lost_K = lax.reduce(pairs, start, add_exactly, (1,))
    return total_K + lost_K


def add_exactly(one: Pair, other: Pair) -> Pair:
    """The sum of two sums, each with all that was rounded away from it (Knuth 1969)."""
    a, a_lost = one
    b, b_lost = other
    total = a + b
    b_seen = total - a
    return total, a_lost + b_lost + ((a - (total - b_seen)) + (b - b_seen))
