"""Resolvers that bargain: everyone's progress counts, the less the more they have."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dcft_jax.conflict.algebra import masked, matmul, require, restrict, ridged
from dcft_jax.conflict.gramian import cosine_gramian
from dcft_jax.conflict.resolver import NOTHING, Resolver

RIDGE = 1e-5  # on the cosine Gramian: keeps coefficients finite where gradients cancel
MAX_STEPS = 40  # of Newton's method; 4 to 12 where gradients do not cancel
RESIDUAL = 2e-7
TRIALS = 8


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
    update the length of the mean. An ability with weight 0 gets coefficient 0.

    Far from 1, float32 does not reach the equations where norms are many decades apart;
    the update stays against no ability.

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
        matrix_KK = ridged(restrict(cosines_KK, kept_K), RIDGE)
        log_y_K = _balance(matrix_KK, log_weights_K, jnp.log(norms_K), alpha)
        diagonal_K = jnp.diagonal(gram_KK.astype(jnp.float32))
        largest = jnp.max(jnp.where(present_K, diagonal_K, 0.0), initial=0.0)
        unit = jnp.where(largest > 0, largest, 1.0) ** (-alpha / (1 + alpha))
        return masked(jnp.exp(log_y_K) * unit / norms_K, kept_K), state

    return Resolver(lambda num_abilities: (), resolve)


@functools.partial(jax.jit, static_argnames="alpha")  # a call outside of jit, too
def _balance(matrix_KK, log_weights_K, log_norms_K, alpha: float) -> jax.Array:
    """`log y` for `y = c |g|`, so that `(C y)_k = q_k y_k^(-1 / alpha)`."""

    def improve(log_y_K, stage):
        beta, pull_back = stage
        log_q_K = log_weights_K + (beta - 1) * log_norms_K
        # A pull towards the last solution takes away that of the ridge towards 0.
        anchor_K = pull_back * RIDGE * jnp.exp(log_y_K)
        return _minimise(matrix_KK, anchor_K, log_q_K, beta, log_y_K), None

    # From the bargain whose scale is known, to the power, to the exact Gramian.
    stages = [(1.0, 0.0), (1 / alpha, 0.0), (1 / alpha, 1.0)][alpha == 1 :]
    betas, pulls = jnp.array(stages, jnp.float32).T
    return lax.scan(improve, log_weights_K / 2, (betas, pulls))[0]


class _Newton(NamedTuple):
    step: jax.Array
    log_y_K: jax.Array
    residual: jax.Array
    stuck: jax.Array


def _minimise(matrix_KK, anchor_K, log_q_K, beta, start_K) -> jax.Array:
    """`log y` at the minimum of a convex function on `y > 0`.

    It is `y^T M y / 2 - a^T y - sum_k q_k y_k^(1 - beta) / (1 - beta)`, a logarithm for
    beta 1. Newton's method in relative steps `dy = y s`, of order 1 whatever the scale.
    """

    def forces(log_y_K):
        """Minus the gradient, times y: what pushes y up, and down."""
        y_K = jnp.exp(log_y_K)
        push_K = jnp.exp(log_q_K + (1 - beta) * log_y_K)
        return push_K, y_K * (matmul(matrix_KK, y_K) - anchor_K)

    def at(step, log_y_K, stuck):
        push_K, pull_K = forces(log_y_K)
        residual = jnp.max(jnp.abs(pull_K / push_K - 1), initial=0.0)
        return _Newton(step, log_y_K, residual, stuck)

    def improve(now):
        push_K, pull_K = forces(now.log_y_K)
        y_K = jnp.exp(now.log_y_K)
        hessian_KK = y_K[:, None] * matrix_KK * y_K + beta * jnp.diag(push_K)
        move_K = _solve(hessian_KK, push_K - pull_K)
        step_K = jnp.log(1 + _best_size(forces, now.log_y_K, move_K) * move_K)
        return at(now.step + 1, now.log_y_K + step_K, jnp.max(jnp.abs(step_K)) < 3e-7)

    def unfinished(now):
        return (now.step < MAX_STEPS) & (now.residual > RESIDUAL) & ~now.stuck

    push_K, pull_K = forces(start_K)
    total = jnp.sum(push_K)
    common = jnp.log(total / jnp.maximum(jnp.sum(pull_K), 1e-6 * total)) / (1 + beta)
    start = at(jnp.int32(0), start_K + common, jnp.bool(False))
    return lax.while_loop(unfinished, improve, start).log_y_K


def _best_size(forces, log_y_K, move_K) -> jax.Array:
    """The size of a step at which the slope along it is closest to 0.

    The objective itself will not do: near the minimum float32 does not know its value
    well enough.
    """

    def slope(size):
        new_K = 1 + size * move_K
        push_K, pull_K = forces(log_y_K + jnp.log(new_K))
        return jnp.abs(jnp.sum((push_K - pull_K) / new_K * move_K))

    to_the_edge = 0.95 / jnp.maximum(jnp.max(-move_K, initial=0.0), 0.95)
    sizes = to_the_edge * 0.7 ** jnp.arange(TRIALS, dtype=jnp.float32)
    slopes = jax.vmap(slope)(sizes)
    return sizes[jnp.argmin(jnp.where(jnp.isfinite(slopes), slopes, jnp.inf))]


def _solve(matrix_KK: jax.Array, right_K: jax.Array) -> jax.Array:
    """Linear solve in units of the diagonal, which spans many decades here."""
    root_K = jnp.sqrt(jnp.diagonal(matrix_KK))
    scaled_KK = matrix_KK / root_K[:, None] / root_K
    return jnp.linalg.solve(scaled_KK, right_K / root_K) / root_K
