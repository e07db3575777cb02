"""Resolvers that bargain: everyone's progress counts, the less the more they have."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dcft_jax.conflict.algebra import masked, matmul, require, restrict, ridged
from dcft_jax.conflict.gramian import cosine_gramian
from dcft_jax.conflict.resolver import NOTHING, Resolver

RIDGE = 1e-6  # on the cosine Gramian: keeps coefficients finite where gradients cancel
MAX_NEWTON_STEPS = 60
RESIDUAL = 2e-7
HALVINGS = 8


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
        log_norms_K = jnp.log(norms_K)
        log_weights_K = jnp.log(jnp.where(kept_K, weights_K, 1.0))
        # For y = c |g|: (C y)_k = q_k y_k^(-1 / alpha).
        log_q_K = log_weights_K + (1 / alpha - 1) * log_norms_K
        matrix_KK = ridged(restrict(cosines_KK, kept_K), RIDGE)
        y_K = _solve(matrix_KK, log_q_K, alpha) / norms_K
        diagonal_K = jnp.diagonal(gram_KK.astype(jnp.float32))
        largest = jnp.max(jnp.where(present_K, diagonal_K, 0.0), initial=0.0)
        unit = jnp.sqrt(jnp.where(largest > 0, largest, 1.0)) ** (
            -2 * alpha / (1 + alpha)
        )
        return masked(y_K * unit, kept_K), state

    return Resolver(lambda num_abilities: (), resolve)


class _Newton(NamedTuple):
    step: jax.Array
    log_y_K: jax.Array
    residual: jax.Array


def _solve(matrix_KK: jax.Array, log_q_K: jax.Array, alpha: float) -> jax.Array:
    """The minimum of `y^T M y / 2 - sum_k q_k y_k^(1 - 1/alpha) / (1 - 1/alpha)`.

    In relative steps `dy = y s`, which are of order 1 whatever the scale of y.
    """
    beta = 1 / alpha

    def force(log_y_K):
        """`y (M y)` and what it should be, `q y^(1 - beta)`."""
        y_K = jnp.exp(log_y_K)
        return y_K * matmul(matrix_KK, y_K), jnp.exp(log_q_K + (1 - beta) * log_y_K)

    def at(step, log_y_K):
        pull_K, push_K = force(log_y_K)
        return _Newton(step, log_y_K, jnp.max(jnp.abs(pull_K / push_K - 1)))

    def improve(now):
        y_K = jnp.exp(now.log_y_K)
        pull_K, push_K = force(now.log_y_K)
        hessian_KK = y_K[:, None] * matrix_KK * y_K + beta * jnp.diag(push_K)
        root_K = jnp.sqrt(jnp.diagonal(hessian_KK))
        scaled_KK = hessian_KK / root_K[:, None] / root_K
        move_K = jnp.linalg.solve(scaled_KK, (push_K - pull_K) / root_K) / root_K
        return at(now.step + 1, now.log_y_K + _damped(force, now.log_y_K, move_K))

    def unfinished(now):
        return (now.step < MAX_NEWTON_STEPS) & (now.residual > RESIDUAL)

    start_K = log_q_K / (1 + beta)
    start_K = start_K + _common_factor(force, start_K, beta)
    return jnp.exp(lax.while_loop(unfinished, improve, at(0, start_K)).log_y_K)


def _common_factor(force, log_y_K, beta):
    """The best multiple of a start: `f^(1 + beta) = sum push / sum pull`."""
    pull_K, push_K = force(log_y_K)
    least = 1e-6 * jnp.sum(push_K)
    ratio = jnp.sum(push_K) / jnp.maximum(jnp.sum(pull_K), least)
    return jnp.log(ratio) / (1 + beta)


def _damped(force, log_y_K, move_K):
    """The longest of a few halvings that does not overshoot, as a step of `log y`.

    Judged by the slope of the convex objective along the move, because float32 knows
    its value too badly near the minimum.
    """

    def slope(size):
        new_K = 1 + size * move_K
        inside = jnp.all(new_K > 0.05)
        step_K = jnp.log(jnp.where(new_K > 0.05, new_K, 1.0))
        pull_K, push_K = force(log_y_K + step_K)
        along = jnp.sum((pull_K - push_K) / jnp.maximum(new_K, 0.05) * move_K)
        return jnp.where(inside & jnp.isfinite(along), along, jnp.inf), step_K

    sizes = 0.5 ** jnp.arange(HALVINGS, dtype=jnp.float32)
    slopes, steps_K = jax.vmap(slope)(sizes)
    pull_K, push_K = force(log_y_K)
    first = jnp.abs(jnp.sum((pull_K - push_K) * move_K))
    good = slopes <= 0.5 * first
    chosen = jnp.where(jnp.any(good), jnp.argmax(good), HALVINGS - 1)
    return steps_K[chosen]
