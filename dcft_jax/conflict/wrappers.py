"""Resolvers around resolvers. Each keeps the state of the inner one in its own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dcft_jax.conflict.algebra import divide, length, masked, require
from dcft_jax.conflict.gramian import cosine_gramian
from dcft_jax.conflict.resolver import NOTHING, Observation, Resolver


class EmaWeightsState(NamedTuple):
    inner: Any
    average_K: jax.Array  # float32
    seen_K: jax.Array  # bool, whether the ability was ever present


def ema_weights(
    resolver: Resolver, decay: float = 0.9, limit: float = 10.0
) -> Resolver:
    """Averages the coefficients over steps: `a <- decay a + (1 - decay) c'`, `c = a`.

    CR-MOGM (Zhou et al. 2022, "On the Convergence of Stochastic Multi-Objective
    Gradient Manipulation and Beyond", NeurIPS): with coefficients from one
    noisy batch, resolvers like `mgda`, `pcgrad` and `cagrad` need not converge; with
    averaged ones they do. An ability starts with its first coefficient; while absent it
    keeps its average and gets 0. The guarantees of the inner resolver hold on average
    only.

    A coefficient beyond `limit` times the sum of the weights counts as that. Those of
    `pcgrad`, `upgrad`, `dualproj`, `cagrad` and `nash_mtl` have no bound where a
    gradient all but vanishes while it conflicts, and an average would carry them over
    to the gradients of normal length that follow.

    Raises:
      ValueError: unless `decay` is in [0, 1) and `limit` >= 1.
    """
    require(0 <= decay < 1, "ema_weights", "decay", decay, "a number in [0, 1)")
    require(limit >= 1, "ema_weights", "limit", limit, "a number >= 1")

    def init(num_abilities):
        zeros_K = jnp.zeros(num_abilities, jnp.float32)
        return EmaWeightsState(
            resolver.init(num_abilities), zeros_K, zeros_K.astype(bool)
        )

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        _, _, present_K = cosine_gramian(gram_KK)
        now_K, inner = resolver.resolve(gram_KK, weights_K, state.inner, observation)
        most = limit * jnp.sum(masked(weights_K, present_K))
        now_K = jnp.clip(now_K, -most, most)
        # This form keeps an average that equals the coefficient bit by bit.
        next_K = state.average_K + (1 - decay) * (now_K - state.average_K)
        next_K = jnp.where(state.seen_K, next_K, now_K)
        average_K = jnp.where(present_K, next_K, state.average_K)
        state = EmaWeightsState(inner, average_K, state.seen_K | present_K)
        return masked(average_K, present_K), state

    return Resolver(init, resolve)


class EveryNState(NamedTuple):
    inner: Any
    ratio_K: jax.Array  # float32, coefficients over weights
    step: jax.Array  # int32


def every_n(resolver: Resolver, n: int) -> Resolver:
    """Resolves in every n-th step, from the first on.

    Between them the ratios `c / w` are used again: the coefficients follow a moving
    mixture, and absent abilities get 0. One that was absent when the ratios were taken,
    or had weight 0, gets the ratio of the others together, `sum c / sum w`. The inner
    resolver sees every n-th observation.

    Raises:
      ValueError: unless `n` is a positive integer.
    """
    require(n == int(n) and n >= 1, "every_n", "n", n, "an integer >= 1")

    def init(num_abilities):
        ones_K = jnp.ones(num_abilities, jnp.float32)
        return EveryNState(
            resolver.init(num_abilities), ones_K, jnp.zeros((), jnp.int32)
        )

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        _, _, present_K = cosine_gramian(gram_KK)
        weights_K = masked(weights_K, present_K)

        def anew(state):
            now_K, inner = resolver.resolve(
                gram_KK, weights_K, state.inner, observation
            )
            return now_K, inner, _ratios(now_K, weights_K)

        def again(state):
            return weights_K * state.ratio_K, state.inner, state.ratio_K

        due = state.step % n == 0
        coefficients_K, inner, ratio_K = lax.cond(due, anew, again, state)
        return coefficients_K, EveryNState(inner, ratio_K, state.step + 1)

    return Resolver(init, resolve)


def noise_gate(resolver: Resolver, z: float = 2.0) -> Resolver:
    """Only a conflict that stands out of the noise counts.

    A negative `G_ij` counts if `G_ij < -z stderr_ij`. The others, and those of unknown
    error, are 0 for the inner resolver: half of the pairs of unrelated gradients have a
    negative product, which says nothing. If that leaves no Gramian of real vectors, the
    products between abilities shrink together until it is one. Where no conflict counts
    the coefficients are the weights, bit by bit, whatever the resolver.

    Reads `observation.stderr_KK`.

    Raises:
      ValueError: unless `z` is not negative; when resolving, without `stderr_KK`.
    """
    require(z >= 0, "noise_gate", "z", z, "a number >= 0")

    def counts(gram_KK, observation: Observation):
        if observation.stderr_KK is None:
            raise ValueError(
                "noise_gate: observation.stderr_KK is None. Pass "
                "Observation(stderr_KK=...) with the standard errors of the products "
                "of the gradients, or use `margin`, which needs none."
            )
        return gram_KK < -z * observation.stderr_KK

    return _gate(resolver, counts)


def margin(resolver: Resolver, cosine: float = 0.02) -> Resolver:
    """Only a conflict of some size counts: one with a cosine below `-cosine`.

    Otherwise like `noise_gate`, for when no standard errors are known. Unrelated
    gradients of P entries have cosines of about `1 / sqrt(P)`.

    Raises:
      ValueError: unless `cosine` is in [0, 1].
    """
    require(0 <= cosine <= 1, "margin", "cosine", cosine, "a number in [0, 1]")

    def counts(gram_KK, observation):
        return cosine_gramian(gram_KK)[0] < -cosine

    return _gate(resolver, counts)


def match_mean_norm(resolver: Resolver) -> Resolver:
    """Gives the update the length of the weighted mean: `c sqrt(w^T G w / c^T G c)`.

    Then one learning rate fits all resolvers, and a comparison is one of directions.
    Where `c` equals the weights it stays so, bit by bit. An update that cancels to
    nothing is left alone.
    """

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        now_K, state = resolver.resolve(gram_KK, weights_K, state, observation)
        cosines_KK, norms_K, present_K = cosine_gramian(gram_KK)
        weights_K = masked(weights_K, present_K)
        unit = jnp.max(jnp.abs(now_K), initial=0.0)
        step_K = divide(now_K, unit) * norms_K
        size = length(step_K, cosines_KK)
        alive = size > 1e-3 * jnp.max(jnp.abs(step_K), initial=0.0)
        factor = divide(length(weights_K * norms_K, cosines_KK), size)
        matched_K = jnp.where(alive, divide(now_K, unit) * factor, now_K)
        same = jnp.all(now_K == weights_K)
        return jnp.where(same, weights_K, matched_K), state

    return Resolver(resolver.init, resolve)


def _ratios(coefficients_K, weights_K):
    common = divide(jnp.sum(coefficients_K), jnp.sum(weights_K))
    ratio_K = divide(coefficients_K, weights_K)
    return jnp.where(weights_K > 0, ratio_K, common)


def _gate(resolver: Resolver, counts: Callable[..., jax.Array]) -> Resolver:
    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        cosines_KK, _, present_K = cosine_gramian(gram_KK)
        against_KK = cosines_KK < 0
        counted_KK = against_KK & counts(gram_KK, observation)
        dropped_KK = against_KK & ~counted_KK
        shrink = _to_semidefinite(jnp.where(dropped_KK, 0.0, cosines_KK))
        shrink = jnp.where(jnp.any(dropped_KK), shrink, 1.0)
        identity_KK = jnp.eye(len(present_K), dtype=bool)
        factor_KK = jnp.where(dropped_KK, 0.0, shrink)
        # `where`, because a product with a non-finite entry would spoil the row.
        gated_KK = jnp.where(identity_KK, gram_KK, gram_KK * factor_KK)
        now_K, state = resolver.resolve(gated_KK, weights_K, state, observation)
        weights_K = masked(weights_K, present_K)
        return jnp.where(jnp.any(counted_KK), now_K, weights_K), state

    return Resolver(resolver.init, resolve)


def _to_semidefinite(cosines_KK) -> jax.Array:
    """A factor on the off-diagonal that leaves no negative eigenvalue.

    Signs and zeros stay as they are, which clipping eigenvalues would not grant.
    """
    lowest = jnp.min(jnp.linalg.eigvalsh(cosines_KK), initial=1.0)
    return jnp.where(lowest < -1e-6, 1 / (1 - lowest), 1.0)
