"""Non-negative quadratic programs of size K, inside jit."""

import jax
import jax.numpy as jnp
from jax import lax

TOLERANCE = 1e-6  # of a linear term whose largest entry is about 1
GRACE_STEPS = 3


def solve_nnqp(matrix_KK: jax.Array, linear_K: jax.Array) -> jax.Array:
    """`argmin_{x >= 0} x^T M x / 2 + q^T x` by block principal pivoting.

    A set of free variables is guessed, its linear system solved, and every violated
    sign flipped, while that makes progress; otherwise only the last violated one is
    flipped, which ends in finitely many steps (Kostreva 1978; Portugal, Judice and
    Vicente 1994, "A comparison of block pivoting and interior-point algorithms").

    Args:
      matrix_KK: float32, symmetric positive definite (add a ridge), diagonal near 1.
      linear_K: float32, scaled so that its entries are of order 1.

    Returns:
      float32 `x_K >= 0`.
    """
    size = len(linear_K)
    max_steps = 40 + 10 * size

    def unfinished(carry):
        step, free_K, _, _ = carry
        return (step < max_steps) & jnp.any(_violated(matrix_KK, linear_K, free_K)[1])

    def pivot(carry):
        step, free_K, fewest, grace = carry
        _, wrong_K = _violated(matrix_KK, linear_K, free_K)
        count = jnp.sum(wrong_K)
        better = count < fewest
        last = size - 1 - jnp.argmax(wrong_K[::-1])
        flip_K = jnp.where(better | (grace > 0), wrong_K, jnp.arange(size) == last)
        grace = jnp.where(better, GRACE_STEPS, jnp.maximum(grace - 1, 0))
        return step + 1, free_K ^ flip_K, jnp.minimum(count, fewest), grace

    start = (
        jnp.int32(0),
        jnp.zeros_like(linear_K, bool),
        jnp.int32(size + 1),
        jnp.int32(0),
    )
    _, free_K, _, _ = lax.while_loop(unfinished, pivot, start)
    x_K, _ = _violated(matrix_KK, linear_K, free_K)
    return jnp.maximum(x_K, 0.0)


def _violated(matrix_KK, linear_K, free_K) -> tuple[jax.Array, jax.Array]:
    """The solution on a free set, and where it or its multipliers are negative."""
    size = len(linear_K)
    inside_KK = free_K[:, None] & free_K
    system_KK = jnp.where(inside_KK, matrix_KK, jnp.eye(size, dtype=jnp.float32))
    x_K = jnp.linalg.solve(system_KK, jnp.where(free_K, -linear_K, 0.0))
    slope_K = jnp.matmul(matrix_KK, x_K, precision=lax.Precision.HIGHEST) + linear_K
    return x_K, jnp.where(free_K, x_K, slope_K) < -TOLERANCE
