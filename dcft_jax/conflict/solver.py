"""Non-negative quadratic programs of size K, inside jit."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dcft_jax.conflict.accurate import residual
from dcft_jax.conflict.algebra import matmul, ridged

TOLERANCE = 1e-6  # of the linear term or the solution, whichever is larger
GRACE_STEPS = 3


@jax.jit  # so that a call outside of jit compiles once, too
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

    def unfinished(carry: _Pivot):
        return (carry.step < max_steps) & jnp.any(carry.wrong_K)

    def pivot(carry: _Pivot) -> _Pivot:
        count = jnp.sum(carry.wrong_K, dtype=jnp.int32)
        better = count < carry.fewest
        last = size - 1 - jnp.argmax(carry.wrong_K[::-1])
        one_K = jnp.arange(size) == last
        flip_K = jnp.where(better | (carry.grace > 0), carry.wrong_K, one_K)
        grace = jnp.where(better, GRACE_STEPS, jnp.maximum(carry.grace - 1, 0))
        free_K = carry.free_K ^ flip_K
        x_K, wrong_K = _violated(matrix_KK, linear_K, free_K)
        fewest = jnp.minimum(count, carry.fewest)
        return _Pivot(carry.step + 1, free_K, x_K, wrong_K, fewest, grace)

    start = _Pivot(
        jnp.int32(0),
        jnp.zeros_like(linear_K, bool),
        jnp.zeros_like(linear_K),
        linear_K < -TOLERANCE,
        jnp.int32(size + 1),
        jnp.int32(0),
    )
    end = lax.while_loop(unfinished, pivot, start)
    x_K = _refined(matrix_KK, linear_K, end.free_K, end.x_K)
    return jnp.maximum(x_K, 0.0)


@functools.partial(jax.jit, static_argnames="steps")
def refine_nnqp(
    matrix_KK: jax.Array, linear_K: jax.Array, ridge: float, steps: int = 3
) -> jax.Array:
    """The solution for a semidefinite matrix, by the proximal point method.

    Each step solves with `ridge` added, but pulls towards the last iterate instead of
    towards 0: the error along an eigenvalue `l` falls by `ridge / (l + ridge)` each
    time, at the conditioning of the ridged problem.
    """

    def step(x_K, _):
        return solve_nnqp(ridged(matrix_KK, ridge), linear_K - ridge * x_K), None

    return lax.scan(step, jnp.zeros_like(linear_K), length=steps)[0]


class _Pivot(NamedTuple):
    step: jax.Array
    free_K: jax.Array
    x_K: jax.Array
    wrong_K: jax.Array
    fewest: jax.Array
    grace: jax.Array


def _violated(matrix_KK, linear_K, free_K) -> tuple[jax.Array, jax.Array]:
    """The solution on a free set, and where it or its multipliers are negative."""
    x_K = _solve_free(matrix_KK, -linear_K, free_K)
    slope_K = matmul(matrix_KK, x_K) + linear_K
    # A large solution comes with rounding of its own size: it must not cause pivots.
    tolerance = TOLERANCE * jnp.maximum(1.0, jnp.max(jnp.abs(x_K), initial=0.0))
    return x_K, jnp.where(free_K, x_K, slope_K) < -tolerance


def _refined(matrix_KK, linear_K, free_K, x_K) -> jax.Array:
    """Rounding of the solve, grown by the condition of the matrix, taken out again."""
    left_K = residual(matrix_KK, x_K, -linear_K)
    return x_K + _solve_free(matrix_KK, left_K, free_K)


def _solve_free(matrix_KK, side_K, free_K) -> jax.Array:
    """The linear system of the free variables; the others are 0."""
    inside_KK = free_K[:, None] & free_K
    identity_KK = jnp.eye(len(side_K), dtype=jnp.float32)
    factor_KK = lax.linalg.cholesky(
        jnp.where(inside_KK, matrix_KK, identity_KK), symmetrize_input=False
    )
    side_K = jnp.where(free_K, side_K, 0.0)
    return jax.scipy.linalg.cho_solve((factor_KK, True), side_K)
