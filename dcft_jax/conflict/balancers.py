"""Balancers: coefficients from the losses alone; the Gramian only says who is present.

The cheap rivals of the resolvers. All keep the sum of the weights, so that they move
the balance and not the learning rate, and all read `observation.loss_K`: the losses of
this step, or validation losses that the caller measures from time to time and repeats.
An ability whose loss is not yet known has its weight as coefficient.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dcft_jax.conflict.algebra import divide, masked, require, rescaled
from dcft_jax.conflict.gramian import cosine_gramian
from dcft_jax.conflict.resolver import NOTHING, Observation, Resolver

EPSILON = 1e-8


class Adam(NamedTuple):
    """Moments of `_adam_step`, one parameter per ability."""

    steps: jax.Array  # int32
    first_K: jax.Array  # float32
    second_K: jax.Array  # float32


class FamoState(NamedTuple):
    logits_K: jax.Array  # float32
    loss_K: jax.Array  # float32, the last one seen; nan before
    adam: Adam


def famo(learning_rate: float = 0.025, gamma: float = 1e-3) -> Resolver:
    """Lets the logarithms of all losses fall equally fast.

    Liu et al. 2023, "FAMO" (arXiv:2306.03792), algorithm 1, with weights p as prior:
    `c` in proportion to `z_k / loss_k`, `z = softmax(logits + log p)`; each step moves
    the logits by Adam along `z (delta - <z, delta>) + gamma logits`, where `delta_k` is
    how much `log loss_k` has fallen since the last step.

    The paper measures both losses of a fall on one batch; here they are those of
    consecutive steps, which costs no extra forward pass but adds the noise of batches.
    Losses must be positive.

    Raises:
      ValueError: unless `learning_rate` is positive and `gamma` not negative; when
        resolving, without `observation.loss_K`.
    """
    require(learning_rate > 0, "famo", "learning_rate", learning_rate, "a number > 0")
    require(gamma >= 0, "famo", "gamma", gamma, "a number >= 0")

    def init(num_abilities):
        unknown_K = jnp.full(num_abilities, jnp.nan, jnp.float32)
        return FamoState(
            jnp.zeros(num_abilities, jnp.float32), unknown_K, _adam(num_abilities)
        )

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        weights_K, loss_K, present_K = observed("famo", gram_KK, weights_K, observation)
        log_K = jnp.log(loss_K + EPSILON)
        fall_K = jnp.log(state.loss_K + EPSILON) - log_K
        measured_K = jnp.isfinite(fall_K)
        z_K = _softmax(state.logits_K, weights_K * measured_K)
        fall_K = jnp.where(measured_K, fall_K, 0.0)
        slope_K = z_K * (fall_K - jnp.sum(z_K * fall_K))
        moved_K, adam = _adam_step(
            state.logits_K, slope_K + gamma * state.logits_K, state.adam, learning_rate
        )
        any_measured = jnp.any(measured_K)
        logits_K = jnp.where(any_measured, moved_K, state.logits_K)
        adam = jax.tree.map(
            lambda new, old: jnp.where(any_measured, new, old), adam, state.adam
        )
        latest_K = jnp.where(jnp.isfinite(loss_K), loss_K, state.loss_K)
        shares_K = _softmax(logits_K, weights_K) / (latest_K + EPSILON)
        coefficients_K = shared_out(shares_K, weights_K)
        return masked(coefficients_K, present_K), FamoState(logits_K, latest_K, adam)

    return Resolver(init, resolve)


class UwState(NamedTuple):
    log_variance_K: jax.Array  # float32; nan before the first loss
    adam: Adam


def uw(learning_rate: float = 0.025) -> Resolver:
    """Weighs each loss by how certain it is: in proportion to `w_k exp(-s_k)`.

    Kendall, Gal and Cipolla 2018 (arXiv:1705.07115), with
    `s = log sigma^2`: the s minimise `exp(-s_k) loss_k / 2 + s_k / 2` by Adam, from 0
    on, so that `exp(s_k)` follows the loss. The first coefficients are the weights.

    Raises:
      ValueError: unless `learning_rate` is positive; when resolving, without
        `observation.loss_K`.
    """
    require(learning_rate > 0, "uw", "learning_rate", learning_rate, "a number > 0")

    def init(num_abilities):
        unknown_K = jnp.full(num_abilities, jnp.nan, jnp.float32)
        return UwState(unknown_K, _adam(num_abilities))

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        weights_K, loss_K, present_K = observed("uw", gram_KK, weights_K, observation)
        # Relative to the smallest, because only ratios matter and `exp` can overflow.
        lowest = jnp.nanmin(state.log_variance_K, initial=jnp.inf)
        shares_K = weights_K * jnp.exp(lowest - state.log_variance_K)
        coefficients_K = shared_out(shares_K, weights_K)
        seen_K = jnp.isfinite(loss_K)
        known_K = jnp.isfinite(state.log_variance_K)
        start_K = jnp.where(known_K, state.log_variance_K, 0.0)
        slope_K = jnp.where(seen_K, (1 - jnp.exp(-start_K) * loss_K) / 2, 0.0)
        moved_K, adam = _adam_step(start_K, slope_K, state.adam, learning_rate)
        moved_K = jnp.where(known_K | seen_K, moved_K, jnp.nan)
        return masked(coefficients_K, present_K), UwState(moved_K, adam)

    return Resolver(init, resolve)


class DwaState(NamedTuple):
    step: jax.Array  # int32
    sum_K: jax.Array  # float32, of the losses of this window
    count_K: jax.Array  # int32
    averages_2K: jax.Array  # float32, of the last two windows, older first; nan before


def dwa(window: int = 100, temperature: float = 2.0) -> Resolver:
    """Weighs up the losses that fall slowest, from one window of steps to the next.

    `c` in proportion to `w_k exp(r_k / temperature)`, with `r_k` the average loss of
    the last window over that of the one before (Liu, Johns and Davison 2019, "Dynamic
    Weight Average", arXiv:1803.10704; windows in place of epochs). In the
    first two windows the coefficients are the weights. An ability without a loss in a
    whole window keeps its average.

    Raises:
      ValueError: unless `window` is a positive integer and `temperature` positive; when
        resolving, without `observation.loss_K`.
    """
    sound = window == int(window) and window >= 1
    require(sound, "dwa", "window", window, "an integer >= 1")
    require(temperature > 0, "dwa", "temperature", temperature, "a number > 0")

    def init(num_abilities):
        zeros_K = jnp.zeros(num_abilities, jnp.float32)
        unknown_2K = jnp.full((2, num_abilities), jnp.nan, jnp.float32)
        return DwaState(
            jnp.zeros((), jnp.int32), zeros_K, zeros_K.astype(jnp.int32), unknown_2K
        )

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        weights_K, loss_K, present_K = observed("dwa", gram_KK, weights_K, observation)
        ratio_K = state.averages_2K[1] / state.averages_2K[0]
        known_K = jnp.isfinite(ratio_K)
        rate_K = _softmax(ratio_K / temperature, weights_K * known_K)
        shares_K = jnp.where(known_K, rate_K, jnp.nan)
        coefficients_K = shared_out(shares_K, weights_K)
        return masked(coefficients_K, present_K), _advance(state, loss_K, window)

    return Resolver(init, resolve)


def _advance(state: DwaState, loss_K: jax.Array, window: int) -> DwaState:
    seen_K = jnp.isfinite(loss_K)
    sum_K = state.sum_K + jnp.where(seen_K, loss_K, 0.0)
    count_K = state.count_K + seen_K
    average_K = jnp.where(count_K > 0, divide(sum_K, count_K), state.averages_2K[1])
    full = (state.step + 1) % window == 0
    averages_2K = jnp.stack([state.averages_2K[1], average_K])
    return DwaState(
        state.step + 1,
        jnp.where(full, 0.0, sum_K),
        jnp.where(full, 0, count_K),
        jnp.where(full, averages_2K, state.averages_2K),
    )


def observed(name: str, gram_KK, weights_K, observation: Observation):
    """Weights and losses, 0 and nan where absent, and presence."""
    if observation.loss_K is None:
        raise ValueError(
            f"{name}: observation.loss_K is None. A balancer reads losses, not "
            "gradients: pass Observation(loss_K=...) with the loss of each ability."
        )
    _, _, present_K = cosine_gramian(gram_KK)
    loss_K = jnp.where(present_K, observation.loss_K.astype(jnp.float32), jnp.nan)
    return masked(weights_K, present_K), loss_K, present_K


def _softmax(logits_K, prior_K):
    """In proportion to `prior exp(logit)`; 0 where the prior is."""
    top = jnp.max(jnp.where(prior_K > 0, logits_K, -jnp.inf), initial=-jnp.inf)
    raised_K = jnp.where(prior_K > 0, prior_K * jnp.exp(logits_K - top), 0.0)
    return divide(raised_K, jnp.sum(raised_K))


def shared_out(shares_K, weights_K):
    """The weights of those whose share is known, shared out anew; nan: not known."""
    known_K = jnp.isfinite(shares_K) & (shares_K >= 0)
    total = jnp.sum(jnp.where(known_K, weights_K, 0.0))
    return jnp.where(
        known_K, rescaled(jnp.where(known_K, shares_K, 0.0), total), weights_K
    )


def _adam(num_abilities: int) -> Adam:
    zeros_K = jnp.zeros(num_abilities, jnp.float32)
    return Adam(jnp.zeros((), jnp.int32), zeros_K, zeros_K)


def _adam_step(values_K, slope_K, adam: Adam, learning_rate: float):
    """Kingma and Ba 2015, algorithm 1, with its default decays."""
    steps = adam.steps + 1
    first_K = adam.first_K + 0.1 * (slope_K - adam.first_K)
    second_K = adam.second_K + 0.001 * (slope_K**2 - adam.second_K)
    mean_K = first_K / (1 - 0.9**steps)
    root_K = jnp.sqrt(second_K / -jnp.expm1(steps * math.log(0.999)))
    return values_K - learning_rate * mean_K / (root_K + 1e-8), Adam(
        steps, first_K, second_K
    )
