"""CoBa: watches whether mix-val losses converge at one pace, or diverge."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dcft_jax.mixture.checks import require, require_count
from dcft_jax.mixture.measured import bounded, known, or_average
from dcft_jax.mixture.rule import MixtureRule


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CobaState:
    """Histories of W entries, the newest first; each ability has its own."""

    prior_K: jax.Array  # float32
    num_updates: jax.Array  # int32
    ratio_WK: jax.Array  # float32, losses over the initial ones
    time_WK: jax.Array  # int32, the update of each, from 1; 0: no entry
    slope_WK: jax.Array  # float32
    num_slopes_K: jax.Array  # int32
    steepest_W: jax.Array  # float32, the largest slope of each update
    num_steepest: jax.Array  # int32


def coba(window: int = 10, warmup_updates: int = 5, tau: float = 5.0) -> MixtureRule:
    """Weighs up what converges slowly, and weighs down what starts to diverge.

    CoBa (Gong et al. 2024, arXiv:2410.06741), on the losses it was made for. With a_k
    the least squares slope, over the last `window` updates, of the mix-val loss of k as
    a share of its initial one,

        RCS = softmax_k(K a_k / sum_k |a_k|)
        ACS = softmax_k(-N_k a_k(t) / sum_t |a_k(t)|)
        DF  = min(1, N softmax_t(-tau a_max(t) N / sum_t |a_max(t)|)[now])
        w in proportion to prior * (DF RCS + (1 - DF) ACS)

    where N counts the slopes in the window and a_max is the largest slope of an update.

    The paper weighs losses, has no prior (it is uniform), and counts steps of one
    validation batch each (window 200, warm-up 100); here an update is a whole
    evaluation. Its sums over time are over the window here, as in `conflict.coba`. The
    authors' code raises the scores to a second softmax; the paper does not. An ability
    without a new measurement keeps its slopes, one without a slope counts as average.

    Args:
      window: at least 2.
      warmup_updates: updates that only measure, at least 1: a slope needs two.

    Raises:
      ValueError: for a value out of range.
    """
    require_count("window", window, 2)
    require_count("warmup_updates", warmup_updates, 1)
    require(0 < tau < float("inf"), "tau", tau, "a number in (0, inf)")

    def init(prior_K):
        size = len(prior_K)
        return CobaState(
            prior_K=jnp.array(prior_K, jnp.float32),
            num_updates=jnp.zeros((), jnp.int32),
            ratio_WK=jnp.zeros((window, size), jnp.float32),
            time_WK=jnp.zeros((window, size), jnp.int32),
            slope_WK=jnp.zeros((window, size), jnp.float32),
            num_slopes_K=jnp.zeros(size, jnp.int32),
            steepest_W=jnp.zeros(window, jnp.float32),
            num_steepest=jnp.zeros((), jnp.int32),
        )

    def update(feedback, state):
        ratio_K = feedback.val_loss_K / feedback.initial_loss_K
        known_K = known(feedback, ratio_K) & (feedback.initial_loss_K > 0)
        return _record(state, bounded(ratio_K), known_K, warmup_updates)

    def weights(state):
        weights_K = state.prior_K * _scores(state, tau)
        weights_K = weights_K / jnp.sum(weights_K)
        return jnp.where(state.num_steepest > 0, weights_K, state.prior_K)

    return MixtureRule(init, update, weights)


def _record(state, ratio_K, known_K, warmup_updates) -> CobaState:
    window = len(state.steepest_W)
    now = state.num_updates + jnp.any(known_K)
    ratio_WK = _push(state.ratio_WK, ratio_K, known_K)
    time_WK = _push(state.time_WK, now, known_K)
    slope_K = jax.vmap(_slope, (1, 1), 0)(time_WK, ratio_WK)
    sloped_K = known_K & (time_WK[1] > 0) & (now > warmup_updates)
    slope_WK = _push(state.slope_WK, slope_K, sloped_K)
    num_slopes_K = jnp.minimum(state.num_slopes_K + sloped_K, window)
    # An ability that was not measured now still has its last slope.
    steepest = jnp.max(jnp.where(num_slopes_K > 0, slope_WK[0], -jnp.inf))
    any_slope = jnp.any(sloped_K)
    return CobaState(
        state.prior_K,
        now,
        ratio_WK,
        time_WK,
        slope_WK,
        num_slopes_K,
        _push(state.steepest_W, steepest, any_slope),
        jnp.minimum(state.num_steepest + any_slope, window),
    )


def _push(history_W, value, known):
    """Puts the value first and lets the oldest go, where it is known."""
    value = jnp.broadcast_to(value, history_W.shape[1:])[None]
    pushed_W = jnp.concatenate([value.astype(history_W.dtype), history_W[:-1]])
    return jnp.where(known, pushed_W, history_W)


def _slope(time_W: jax.Array, ratio_W: jax.Array) -> jax.Array:
    """Least squares over the entries; 0 for fewer than two."""
    entry_W = time_W > 0
    count = jnp.maximum(jnp.sum(entry_W), 1)
    # From the newest on: small numbers are exact.
    x_W = jnp.where(entry_W, time_W - time_W[0], 0).astype(jnp.float32)
    x_W = jnp.where(entry_W, x_W - jnp.sum(x_W) / count, 0.0)
    y_W = jnp.where(entry_W, ratio_W, 0.0)
    y_W = jnp.where(entry_W, y_W - jnp.sum(y_W) / count, 0.0)
    square = jnp.sum(x_W**2)
    return jnp.sum(x_W * y_W) / jnp.where(square > 0, square, 1.0)


def _scores(state: CobaState, tau: float) -> jax.Array:
    """`DF RCS + (1 - DF) ACS`, for each ability."""
    entry_WK = jnp.arange(len(state.slope_WK))[:, None] < state.num_slopes_K
    sloped_K = state.num_slopes_K > 0
    slope_K = jnp.where(sloped_K, state.slope_WK[0], 0.0)
    size = jnp.sum(jnp.abs(slope_K))
    past_K = jnp.sum(jnp.abs(jnp.where(entry_WK, state.slope_WK, 0.0)), axis=0)
    relative_K = jnp.sum(sloped_K) * slope_K / jnp.where(size > 0, size, 1.0)
    absolute_K = -state.num_slopes_K * slope_K / jnp.where(past_K > 0, past_K, 1.0)
    divergence = _divergence(state.steepest_W, state.num_steepest, tau)
    relative_K = jax.nn.softmax(or_average(sloped_K, relative_K))
    absolute_K = jax.nn.softmax(or_average(sloped_K, absolute_K))
    return divergence * relative_K + (1.0 - divergence) * absolute_K


def _divergence(steepest_W, count, tau: float) -> jax.Array:
    """DF: near 1 while the losses fall as they did, less when one rises."""
    entry_W = jnp.arange(len(steepest_W)) < count
    size = jnp.sum(jnp.abs(jnp.where(entry_W, steepest_W, 0.0)))
    falls_W = -tau * count * steepest_W / jnp.where(size > 0, size, 1.0)
    shares_W = jax.nn.softmax(jnp.where(entry_W, falls_W, -jnp.inf))
    # Without an entry the softmax is nan, and so is what nobody reads.
    return jnp.minimum(1.0, jnp.where(count > 0, count * shares_W[0], 1.0))
