"""Non-negative quadratic programs of size K, inside jit."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dcft_jax.conflict.accurate import add_exactly, residual
from dcft_jax.conflict.algebra import matmul, ridged

GRACE_STEPS = 3
# Where a variable or a multiplier counts as negative, relative to the linear term or
# the solution, whichever is larger.
ROUGH, FINE = 1e-6, 1e-8
REFINEMENTS = 3

Evaluate = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


@jax.jit  # so that a call outside of jit compiles once, too
def solve_nnqp(matrix_KK: jax.Array, linear_K: jax.Array) -> jax.Array:
    """`argmin_{x >= 0} x^T M x / 2 + q^T x` by block principal pivoting.

    A set of free variables is guessed, its linear system solved, and every violated
    sign flipped, while that makes progress; otherwise only the last violated one is
    flipped, which ends in finitely many steps (Kostreva 1978; Portugal, Judice and
    Vicente 1994, "A comparison of block pivoting and interior-point algorithms").

    The set found in float32 is looked at once more to 48 bits: along an eigenvalue `l`
    of M a sign that rounding got wrong is an error of `rounding / l` in x.

    Args:
      matrix_KK: float32, symmetric positive definite (add a ridge), diagonal near 1.
      linear_K: float32, scaled so that its entries are of order 1.

    Returns:
      float32 `x_K >= 0`.
    """
    rough = functools.partial(_solve_free, matrix_KK, linear_K)
    fine = functools.partial(_solve_free_accurately, matrix_KK, linear_K)
    nothing_K = jnp.zeros_like(linear_K, bool)
    free_K, _ = _pivot_until_right(rough, ROUGH, nothing_K, linear_K < -ROUGH)
    _, x_K = _pivot_until_right(fine, FINE, free_K, nothing_K)
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


def _pivot_until_right(
    evaluate: Evaluate, tolerance: float, free_K: jax.Array, wrong_K: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The free variables and the solution, from a first guess and what is wrong in it.

    `evaluate(free_K)`: the solution on a free set and the slope there. It is called at
    least once.
    """
    size = len(free_K)
    max_steps = 40 + 10 * size

    def unfinished(carry: _Pivot):
        wrong = (carry.step == 0) | jnp.any(carry.wrong_K)
        return (carry.step < max_steps) & wrong

    def pivot(carry: _Pivot) -> _Pivot:
        count = jnp.sum(carry.wrong_K, dtype=jnp.int32)
        better = count < carry.fewest
        last = size - 1 - jnp.argmax(carry.wrong_K[::-1])
        one_K = jnp.arange(size) == last
        flip_K = jnp.where(better | (carry.grace > 0), carry.wrong_K, one_K)
        grace = jnp.where(better, GRACE_STEPS, jnp.maximum(carry.grace - 1, 0))
        free_K = carry.free_K ^ flip_K
        x_K, slope_K = evaluate(free_K)
        # A large solution comes with rounding of its own size: no reason for pivots.
        scale = jnp.maximum(1.0, jnp.max(jnp.abs(x_K), initial=0.0))
        wrong_K = jnp.where(free_K, x_K, slope_K) < -tolerance * scale
        fewest = jnp.minimum(count, carry.fewest)
        return _Pivot(carry.step + 1, free_K, x_K, wrong_K, fewest, grace)

    nothing, none_K = jnp.int32(0), jnp.zeros(size, jnp.float32)
    start = _Pivot(nothing, free_K, none_K, wrong_K, jnp.int32(size + 1), nothing)
    end = lax.while_loop(unfinished, pivot, start)
    return end.free_K, end.x_K


def _solve_free(matrix_KK, linear_K, free_K) -> tuple[jax.Array, jax.Array]:
    """The solution of the free variables, the others 0, and the slope."""
    x_K = _factorised(matrix_KK, free_K)(-linear_K)
    return x_K, matmul(matrix_KK, x_K) + linear_K


def _solve_free_accurately(matrix_KK, linear_K, free_K) -> tuple[jax.Array, jax.Array]:
    """As `_solve_free`, refined: the solution is carried as a sum of two numbers."""
    solve = _factorised(matrix_KK, free_K)
    twice_KM = jnp.concatenate([matrix_KK, matrix_KK], axis=1)

    def refine(_, carry):
        pair, left_K = carry
        change_K = solve(left_K)
        pair = add_exactly(pair, (change_K, jnp.zeros_like(change_K)))
        return pair, residual(twice_KM, jnp.concatenate(pair), -linear_K)

    zero_K = jnp.zeros_like(linear_K)
    start = (zero_K, zero_K), -linear_K
    (x_K, _), left_K = lax.fori_loop(0, REFINEMENTS, refine, start)
    return x_K, -left_K


def _factorised(matrix_KK, free_K) -> Callable[[jax.Array], jax.Array]:
    """Solves the linear system of the free variables; the others are 0."""
    inside_KK = free_K[:, None] & free_K
    identity_KK = jnp.eye(len(free_K), dtype=jnp.float32)
    factor_KK = lax.linalg.cholesky(
        jnp.where(inside_KK, matrix_KK, identity_KK), symmetrize_input=False
    )

    def solve(side_K: jax.Array) -> jax.Array:
        side_K = jnp.where(free_K, side_K, 0.0)
        return jax.scipy.linalg.cho_solve((factor_KK, True), side_K)

    return solve
