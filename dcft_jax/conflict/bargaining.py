"""Resolvers that bargain: everyone's progress counts, the less the more they have."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dcft_jax.conflict.algebra import divide, masked, matmul, require, restrict, ridged
from dcft_jax.conflict.gramian import cosine_gramian
from dcft_jax.conflict.resolver import NOTHING, Resolver

# On the cosine Gramian: keeps coefficients finite where gradients cancel. The first is
# safe in float32, the second, tried from the solution of the first, more exact.
RIDGES = (1e-5, 1e-6)
MAX_STEPS = 40
RESIDUAL = 2e-7
TRIALS = 8
LONGEST = 4.0  # step of a logarithm


def nash_mtl() -> Resolver:
    """The Nash bargaining solution: `c > 0` with `(G c)_k = w_k / c_k`.

    It maximises `sum_k w_k log <g_k, d>` over updates d of a given length (Navon et al.
    2022, "Multi-Task Learning as a Bargaining Game", arXiv:2202.01017, claim 3.1; with
    weights, the asymmetric solution). The update is against no ability, the direction
    does not depend on the norms of the gradients, and the length is always
    `sqrt(sum w)`: `c` grows as gradients shrink, by `s^-1/2` when G is multiplied by s.
    `match_mean_norm` gives it the length of the mean.

    It is the minimum of the convex `c^T G c / 2 - sum w_k log c_k`, found by Newton's
    method. An ability with weight 0 gets coefficient 0.
    """
    return _bargain(1.0)


def fairgrad(alpha: float = 2.0) -> Resolver:
    """Alpha-fair progress: `c > 0` with `(G c)_k = w_k c_k^(-1 / alpha)`.

    Ban and Ji 2024, "Fair Resource Allocation in Multi-Task Learning"
    (arXiv:2402.15638), equation 4, with weights. 1 is `nash_mtl`; towards 0 all
    coefficients are equal, and towards infinity every ability progresses in proportion
    to its weight, as in `mgda`. The update is against no ability. `c` is multiplied by
    `s^(-alpha / (1 + alpha))` when G is multiplied by s; `match_mean_norm` gives the
    update the length of the mean. An ability with
    weight 0 gets coefficient 0.

    Away from 1, float32 does not reach the equations where norms are more than about
    three decades apart; the update stays against no ability.

    Raises:
      ValueError: unless `alpha` is in [0.1, 10].
    """
    allowed = "a number in [0.1, 10]; float32 powers end there"
    require(0.1 <= alpha <= 10, "fairgrad", "alpha", alpha, allowed)
    return _bargain(float(alpha))


def _bargain(alpha: float) -> Resolver:
    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        cosines_KK, norms_K, present_K = cosine_gramian(gram_KK)
        weights_K = masked(weights_K, present_K)
        kept_K = weights_K > 0
        log_weights_K = jnp.log(jnp.where(kept_K, weights_K, 1.0))
        cosines_KK = restrict(cosines_KK, kept_K)
        # For y = c |g|: (C y)_k = q_k y_k^(-1 / alpha).
        log_q_K = log_weights_K + (1 / alpha - 1) * jnp.log(norms_K)
        log_y_K = _nash(ridged(cosines_KK, RIDGES[0]), log_weights_K)
        for ridge in RIDGES:
            log_y_K = _balance(ridged(cosines_KK, ridge), log_q_K, 1 / alpha, log_y_K)
        diagonal_K = jnp.diagonal(gram_KK.astype(jnp.float32))
        largest = jnp.max(jnp.where(present_K, diagonal_K, 0.0), initial=0.0)
        log_unit = jnp.log(jnp.where(largest > 0, largest, 1.0)) / (1 + 1 / alpha)
        return masked(jnp.exp(log_y_K - log_unit) / norms_K, kept_K), state

    return Resolver(lambda num_abilities: (), resolve)


class _Newton(NamedTuple):
    step: jax.Array
    log_y_K: jax.Array
    residual: jax.Array
    stuck: jax.Array


def _unfinished(now: _Newton) -> jax.Array:
    return (now.step < MAX_STEPS) & (now.residual > RESIDUAL) & ~now.stuck


def _solve(matrix_KK: jax.Array, right_K: jax.Array) -> jax.Array:
    """Linear solve in units of the diagonal, which spans many decades here."""
    root_K = jnp.sqrt(jnp.diagonal(matrix_KK))
    scaled_KK = matrix_KK / root_K[:, None] / root_K
    return jnp.linalg.solve(scaled_KK, right_K / root_K) / root_K


def _nash(matrix_KK: jax.Array, log_weights_K: jax.Array) -> jax.Array:
    """`log y` at the minimum of the convex `y^T M y / 2 - sum_k w_k log y_k`.

    Newton's method in relative steps `dy = y s`, of order 1 whatever the scale of y.
    """
    weights_K = jnp.exp(log_weights_K)

    def force(log_y_K):
        y_K = jnp.exp(log_y_K)
        return weights_K - y_K * matmul(matrix_KK, y_K)

    def at(step, log_y_K, stuck):
        residual = jnp.max(jnp.abs(force(log_y_K) / weights_K), initial=0.0)
        return _Newton(step, log_y_K, residual, stuck)

    def improve(now):
        y_K = jnp.exp(now.log_y_K)
        hessian_KK = y_K[:, None] * matrix_KK * y_K + jnp.diag(weights_K)
        move_K = _solve(hessian_KK, force(now.log_y_K))

        # Along the move the best size has slope 0. The objective itself will not do:
        # near the minimum float32 does not know its value well enough.
        def slope(size):
            new_K = 1 + size * move_K
            force_K = force(now.log_y_K + jnp.log(new_K))
            return jnp.abs(jnp.sum(force_K / new_K * move_K))

        to_the_edge = divide(jnp.float32(0.95), jnp.max(-move_K, initial=0.0))
        longest = jnp.where(to_the_edge > 0, jnp.minimum(1.0, to_the_edge), 1.0)
        sizes = longest * 0.7 ** jnp.arange(TRIALS, dtype=jnp.float32)
        slopes = jax.vmap(slope)(sizes)
        size = sizes[jnp.argmin(jnp.where(jnp.isfinite(slopes), slopes, jnp.inf))]
        step_K = jnp.log(1 + size * move_K)
        return at(now.step + 1, now.log_y_K + step_K, jnp.max(jnp.abs(step_K)) < 3e-7)

    start_K = log_weights_K / 2
    total = jnp.sum(weights_K)
    pull = jnp.sum(weights_K - force(start_K))
    start_K += jnp.log(total / jnp.maximum(pull, 1e-6 * total)) / 2
    start = at(jnp.int32(0), start_K, jnp.bool(False))
    return lax.while_loop(_unfinished, improve, start).log_y_K


def _balance(matrix_KK, log_q_K, beta: float, log_y_K: jax.Array) -> jax.Array:
    """`log y` with `log (M y)_k + beta log y_k = log q_k`, from a y with `M y > 0`.

    Newton's method on the logarithms, where powers are linear; whatever it stops at is
    against no ability, because it never leaves the y with `M y > 0`.
    """

    def residual(log_y_K):
        image_K = matmul(matrix_KK, jnp.exp(log_y_K))
        residual_K = jnp.log(jnp.maximum(image_K, 1e-30)) + beta * log_y_K - log_q_K
        return jnp.where(jnp.all(image_K > 0), residual_K, jnp.inf)

    def at(step, log_y_K, stuck):
        largest = jnp.max(jnp.abs(residual(log_y_K)), initial=0.0)
        return _Newton(step, log_y_K, largest, stuck)

    def improve(now):
        y_K = jnp.exp(now.log_y_K)
        pull_K = y_K * matmul(matrix_KK, y_K)
        hessian_KK = y_K[:, None] * matrix_KK * y_K + beta * jnp.diag(pull_K)
        now_K = residual(now.log_y_K)
        move_K = _solve(hessian_KK, -pull_K * now_K)
        move_K *= jnp.minimum(1.0, LONGEST / jnp.max(jnp.abs(move_K)))

        def square(size):
            squares_K = residual(now.log_y_K + size * move_K) ** 2
            return jnp.nan_to_num(jnp.sum(squares_K), nan=jnp.inf, posinf=jnp.inf)

        sizes = 0.5 ** jnp.arange(TRIALS, dtype=jnp.float32)
        squares = jax.vmap(square)(sizes)
        best = jnp.argmin(squares)
        better = squares[best] < jnp.sum(now_K**2)
        moved_K = jnp.where(better, now.log_y_K + sizes[best] * move_K, now.log_y_K)
        return at(now.step + 1, moved_K, ~better)

    first_K = residual(log_y_K)
    shift = jnp.where(jnp.all(jnp.isfinite(first_K)), jnp.mean(first_K), 0.0)
    start = at(jnp.int32(0), log_y_K - shift / (1 + beta), jnp.bool(False))
    return lax.while_loop(_unfinished, improve, start).log_y_K
