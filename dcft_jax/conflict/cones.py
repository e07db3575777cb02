"""Resolvers that project onto the cone of updates which are against no ability."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dcft_jax.conflict.algebra import (
    divide,
    length,
    masked,
    matmul,
    require,
    ridged,
)
from dcft_jax.conflict.gramian import cosine_gramian
from dcft_jax.conflict.resolver import NOTHING, Resolver
from dcft_jax.conflict.solver import refine_nnqp, solve_nnqp

RIDGE_RANGE = "a number in (0, 1]; float32 needs about 1e-4"


def dualproj(ridge: float = 1e-4) -> Resolver:
    """The update closest to the weighted mean that is against no ability.

    `c = argmin_{v >= w} v^T G v`, the projection of the mean on the cone of updates
    whose inner product with every gradient is not negative (Lopez-Paz and Ranzato 2017,
    "Gradient Episodic Memory", arXiv:1706.08840, in its dual form). It acts only if
    the mean itself is against an ability; otherwise the coefficients are the weights.

    Solved on the cosine Gramian, for `x = v - w` in units of the norms, with `ridge`
    added to its diagonal: the coefficients do not depend on the scale of the gradients,
    and stay finite for antiparallel and repeated ones.

    Raises:
      ValueError: unless `ridge` is in (0, 1].
    """
    require(0 < ridge <= 1, "dualproj", "ridge", ridge, RIDGE_RANGE)

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        cosines_KK, norms_K, present_K = cosine_gramian(gram_KK)
        weights_K = masked(weights_K, present_K)
        mean_K = weights_K * norms_K
        largest = jnp.max(mean_K, initial=0.0)
        scale = jnp.where(largest > 0, largest, 1.0)
        linear_K = matmul(cosines_KK, mean_K / scale)
        x_K = solve_nnqp(ridged(cosines_KK, ridge), linear_K) * scale / norms_K
        coefficients_K = jnp.where(jnp.any(x_K > 0), weights_K + x_K, weights_K)
        return masked(coefficients_K, present_K), state

    return Resolver(lambda num_abilities: (), resolve)


def upgrad(ridge: float = 1e-4) -> Resolver:
    """The weighted mean of the gradients, each projected so that it is against nobody.

    `c = sum_i p_i argmin_{v >= e_i} v^T G v` with the weights p (Quinton and Rey 2024,
    "Jacobian Descent for Multi-Objective Optimization", arXiv:2406.16232). The update
    is against no ability, and linear in a rescaling of the gradients: abilities with
    small gradients keep their say. Where no two gradients conflict the coefficients are
    the weights.

    The K programs are solved on the cosine Gramian, where they do not depend on any
    norm, with `ridge` added to its diagonal.

    Raises:
      ValueError: unless `ridge` is in (0, 1].
    """
    require(0 < ridge <= 1, "upgrad", "ridge", ridge, RIDGE_RANGE)

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        cosines_KK, norms_K, present_K = cosine_gramian(gram_KK)
        weights_K = masked(weights_K, present_K)
        # Row i: what the projection adds to unit gradient i.
        solve = jax.vmap(solve_nnqp, (None, 0))
        added_KK = solve(ridged(cosines_KK, ridge), cosines_KK)
        coefficients_K = weights_K + matmul(weights_K * norms_K, added_KK) / norms_K
        return masked(coefficients_K, present_K), state

    return Resolver(lambda num_abilities: (), resolve)


class PCDState(NamedTuple):
    square_norm_K: jax.Array  # float32, average of `G_kk`, free of its start
    count_K: jax.Array  # int32, in how many steps the ability was present


def pcd(
    priority: int = 0, tau: float = 0.02, beta: float = 0.999, ridge: float = 1e-4
) -> Resolver:
    """Follows one ability, as far as the others all get some progress.

    Priority-Constrained Descent (TMLR 2026, arXiv:2606.29521): with `q_k = g_k / s_k`
    and `s_k^2` the average of `|g_k|^2` over the steps so far, of decay `beta`,

        d = argmin |d - q_priority|^2  s.t.  <q_k, d> >= tau_k |q_k|^2 for the others,

    rescaled to the length of `g_priority` times the sum of the weights. Each of the
    others gets at least the fraction `tau_k` of the progress of a step along itself.
    The weights are preferences between them: `tau_k = min(1, tau p_k / mean p)`, the
    mean over the others present. Constraints that cannot all hold (three or more
    abilities) are dropped, a `d` of length 0 gives coefficients 0, both as in the
    paper. Where `priority` itself is absent, the coefficients are the weights.

    Raises:
      ValueError: unless `tau` is in [0, 1], `beta` in [0, 1), `ridge` in (0, 1] and
        `priority` is one of the abilities.
    """
    require(0 <= tau <= 1, "pcd", "tau", tau, "a number in [0, 1]")
    require(0 <= beta < 1, "pcd", "beta", beta, "a number in [0, 1)")
    require(0 < ridge <= 1, "pcd", "ridge", ridge, RIDGE_RANGE)
    require(priority >= 0, "pcd", "priority", priority, "the index of an ability, >= 0")

    def init(num_abilities):
        allowed = f"the index of one of {num_abilities} abilities"
        require(priority < num_abilities, "pcd", "priority", priority, allowed)
        zeros_K = jnp.zeros(num_abilities)
        return PCDState(zeros_K.astype(jnp.float32), zeros_K.astype(jnp.int32))

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        cosines_KK, norms_K, present_K = cosine_gramian(gram_KK)
        weights_K = masked(weights_K, present_K)
        state, sizes_K = _against_average(gram_KK, present_K, state, beta)
        first_K = jnp.arange(len(norms_K)) == priority
        needed_K = _shares(weights_K, present_K & ~first_K, tau) * sizes_K
        step_K = _nearest(cosines_KK, first_K, sizes_K[priority], needed_K, ridge)
        target = jnp.sum(weights_K) * norms_K[priority]
        size = length(step_K, cosines_KK)
        # Below this float32 knows no direction: the gradients of the step cancel.
        alive = size > 1e-3 * jnp.sum(step_K)
        coefficients_K = jnp.where(alive, step_K * divide(target, size) / norms_K, 0.0)
        coefficients_K = jnp.where(present_K[priority], coefficients_K, weights_K)
        return masked(coefficients_K, present_K), state

    return Resolver(init, resolve)


def _against_average(gram_KK, present_K, state, beta):
    """The new averages of the square norms, and today's norms in units of them."""
    square_K = jnp.where(present_K, jnp.diagonal(gram_KK.astype(jnp.float32)), 1.0)
    count_K = state.count_K + present_K
    # (1 - beta) / (1 - beta^n) without cancellation: the plain mean at first.
    log_beta = jnp.log(jnp.float32(beta))
    gain_K = jnp.expm1(log_beta) / jnp.expm1(jnp.maximum(count_K, 1) * log_beta)
    average_K = state.square_norm_K + gain_K * (square_K - state.square_norm_K)
    average_K = jnp.where(present_K, average_K, state.square_norm_K)
    sizes_K = jnp.where(present_K, jnp.sqrt(divide(square_K, average_K)), 0.0)
    return PCDState(average_K, count_K), sizes_K


def _shares(weights_K, others_K, tau):
    total = jnp.sum(jnp.where(others_K, weights_K, 0.0))
    shares_K = divide(weights_K * jnp.sum(others_K), total)
    return jnp.where(others_K, jnp.minimum(1.0, tau * shares_K), 0.0)


def _nearest(cosines_KK, first_K, size, needed_K, ridge):
    """The step as coefficients of the unit gradients."""
    start_K = jnp.where(first_K, size, 0.0)
    slack_K = matmul(cosines_KK, start_K) - needed_K
    # The constraint of the first one is not one: its multiplier is held at 0.
    kept_KK = ~first_K[:, None] & ~first_K
    identity_KK = jnp.eye(len(first_K), dtype=jnp.float32)
    matrix_KK = jnp.where(kept_KK, cosines_KK, identity_KK)
    added_K = refine_nnqp(matrix_KK, jnp.where(first_K, 0.0, slack_K), ridge)
    reached_K = matmul(cosines_KK, start_K + added_K)
    possible = jnp.all(first_K | (reached_K >= needed_K / 2 - 1e-3))
    return jnp.where(possible, start_K + added_K, start_K)
