"""CoBa: a balancer that watches whether losses converge at one pace, or diverge."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dcft_jax.conflict.algebra import divide, masked, require
from dcft_jax.conflict.balancers import observed, shared_out
from dcft_jax.conflict.resolver import NOTHING, Resolver


class CobaState(NamedTuple):
    """Ring buffers of W steps; step t is in row `t % W`, and nan is not known."""

    step: jax.Array  # int32
    first_loss_K: jax.Array  # float32
    ratio_WK: jax.Array  # float32, losses over the first ones
    slope_WK: jax.Array  # float32
    steepest_W: jax.Array  # float32, the largest slope of each step


def coba(window: int = 200, warmup: int = 100, tau: float = 5.0) -> Resolver:
    """Weighs up what converges slowly, and weighs down what starts to diverge.

    CoBa (Gong et al. 2024, arXiv:2410.06741). With `a_k(t)` the least
    squares slope of `loss_k / first loss_k` over the last `window` steps:

        RCS = softmax_k(K a_k / sum_k |a_k|)
        ACS = softmax_k(-N a_k(t) / sum_t |a_k(t)|)
        DF  = min(1, N softmax_t(-tau N a_max(t) / sum_t |a_max(t)|)[now])

    and `c` in proportion to `w (DF RCS + (1 - DF) ACS)`, where N is the number of
    slopes known in the window and `a_max` the largest slope of a step. While all
    converge, DF is near 1 and the slowest (RCS) get more; when one diverges DF falls,
    and those that still converge (ACS) do. The first `warmup` steps return the weights.

    The paper feeds the losses of one validation batch per step, and they are what keeps
    an overfitted ability from being pushed on: pass those as `observation.loss_K` where
    you can. The sums over time of DF end with the window instead of at the first step.

    Raises:
      ValueError: unless `window >= 2`, `2 <= warmup` and `tau > 0`; when resolving,
        without `observation.loss_K`.
    """
    sound = window == int(window) and window >= 2
    require(sound, "coba", "window", window, "an integer >= 2")
    sound = warmup == int(warmup) and warmup >= 2
    require(sound, "coba", "warmup", warmup, "an integer >= 2")
    require(tau > 0, "coba", "tau", tau, "a number > 0")

    def init(num_abilities):
        unknown_WK = jnp.full((window, num_abilities), jnp.nan, jnp.float32)
        return CobaState(
            jnp.zeros((), jnp.int32),
            unknown_WK[0],
            unknown_WK,
            unknown_WK,
            unknown_WK[:, 0],
        )

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        weights_K, loss_K, present_K = observed("coba", gram_KK, weights_K, observation)
        state = _record(state, loss_K, warmup)
        slope_K = state.slope_WK[(state.step - 1) % window]
        shares_K = _scores(slope_K, state, tau)
        coefficients_K = shared_out(weights_K * shares_K, weights_K)
        return masked(coefficients_K, present_K), state

    return Resolver(init, resolve)


def _record(state: CobaState, loss_K: jax.Array, warmup: int) -> CobaState:
    window = len(state.ratio_WK)
    row = state.step % window
    known_K = jnp.isfinite(state.first_loss_K)
    first_loss_K = jnp.where(known_K, state.first_loss_K, loss_K)
    ratio_WK = state.ratio_WK.at[row].set(divide(loss_K, first_loss_K))
    # Age 0 is now; the origin does not matter to a slope, and small numbers are exact.
    age_W = ((row - jnp.arange(window)) % window).astype(jnp.float32)
    slope_K = jax.vmap(_slope, (None, 1))(-age_W, ratio_WK)
    # A missing loss now says nothing about where the ability is going.
    slope_K = jnp.where(state.step + 1 >= warmup, slope_K, jnp.nan)
    steepest = jnp.max(jnp.where(jnp.isfinite(slope_K), slope_K, -jnp.inf))
    steepest = jnp.where(jnp.isfinite(steepest), steepest, jnp.nan)
    return CobaState(
        state.step + 1,
        first_loss_K,
        ratio_WK,
        state.slope_WK.at[row].set(slope_K),
        state.steepest_W.at[row].set(steepest),
    )


def _slope(x_W: jax.Array, y_W: jax.Array) -> jax.Array:
    """Least squares over the finite y; nan for fewer than two."""
    known_W = jnp.isfinite(y_W)
    count = jnp.sum(known_W)
    x_W = jnp.where(known_W, x_W - divide(jnp.sum(x_W * known_W), count), 0.0)
    y_W = jnp.where(known_W, y_W, 0.0)
    y_W = jnp.where(known_W, y_W - divide(jnp.sum(y_W), count), 0.0)
    return jnp.where(count > 1, divide(jnp.sum(x_W * y_W), jnp.sum(x_W**2)), jnp.nan)


def _scores(slope_K: jax.Array, state: CobaState, tau: float) -> jax.Array:
    """`DF RCS + (1 - DF) ACS`; nan where the slope is not known."""
    known_K = jnp.isfinite(slope_K)
    size = jnp.sum(jnp.where(known_K, jnp.abs(slope_K), 0.0))
    relative_K = divide(jnp.sum(known_K) * slope_K, size)
    relative_K = _softmax_of_known(jnp.where(known_K, relative_K, jnp.nan))
    past_WK = jnp.abs(state.slope_WK)
    known_WK = jnp.isfinite(past_WK)
    past_K = jnp.sum(jnp.where(known_WK, past_WK, 0.0), axis=0)
    absolute_K = divide(-jnp.sum(known_WK, axis=0) * slope_K, past_K)
    absolute_K = _softmax_of_known(jnp.where(known_K, absolute_K, jnp.nan))
    divergence = _divergence(state, tau)
    return divergence * relative_K + (1 - divergence) * absolute_K


def _divergence(state: CobaState, tau: float) -> jax.Array:
    steepest_W = state.steepest_W
    known_W = jnp.isfinite(steepest_W)
    count = jnp.sum(known_W)
    size = jnp.sum(jnp.where(known_W, jnp.abs(steepest_W), 0.0))
    falls_W = divide(-tau * count * steepest_W, size)
    shares_W = _softmax_of_known(jnp.where(known_W, falls_W, jnp.nan))
    now = shares_W[(state.step - 1) % len(steepest_W)]
    return jnp.minimum(1.0, count * now)


def _softmax_of_known(values_N: jax.Array) -> jax.Array:
    known_N = jnp.isfinite(values_N)
    shares_N = jax.nn.softmax(jnp.where(known_N, values_N, -jnp.inf))
    return jnp.where(known_N, shares_N, jnp.nan)
