"""Resolvers that edit each gradient against the others, one after the other."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dcft_jax.conflict.algebra import masked, matmul, require
from dcft_jax.conflict.gramian import cosine_gramian
from dcft_jax.conflict.resolver import NOTHING, Resolver

# Square of the length at which float32 no longer knows the direction of a gradient
# that started at length 1 and had projections taken off.
VANISHED = 1e-6
STEEPEST = 0.999  # as a target cosine; the tangent of the angle is the step


class PCGradState(NamedTuple):
    step: jax.Array  # int32: the orders of the projections depend on it


def pcgrad(seed: int = 0) -> Resolver:
    """Projects each gradient off those it conflicts with, one after the other.

    Yu et al. 2020, "Gradient Surgery for Multi-Task Learning" (arXiv:2001.06782),
    algorithm 1, exactly, in Gram space and in the mean form: `c = w^T C`, where row i
    of C holds the projected gradient i as coefficients of all gradients. The order in
    which gradient i meets the others is random, from `seed` and the number of steps in
    the state. With three or more abilities some may still lose: the projections undo
    each other. Where no two gradients conflict the coefficients are the weights.
    """

    def init(num_abilities):
        return PCGradState(jnp.zeros((), jnp.int32))

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        cosines_KK, norms_K, present_K = cosine_gramian(gram_KK)
        targets_KK = jnp.zeros_like(cosines_KK)
        rows_KK, _ = _edit_rows(seed, state.step, cosines_KK, targets_KK, present_K)
        coefficients_K = _combined(rows_KK, masked(weights_K, present_K), norms_K)
        return masked(coefficients_K, present_K), PCGradState(state.step + 1)

    return Resolver(init, resolve)


class GradVacState(NamedTuple):
    step: jax.Array  # int32
    target_KK: jax.Array  # float32, the cosines to reach, row i for gradient i


def gradvac(beta: float = 0.5, seed: int = 0) -> Resolver:
    """Turns each gradient until its cosine with every other is what it usually is.

    Wang et al. 2021, "Gradient Vaccine" (arXiv:2010.05874), algorithm 1, in Gram space
    and in the mean form of `pcgrad`: where the cosine `f` of (edited) gradient i with
    gradient j is below the target `t_ij`, gradient i gets
    `|g_i| (t sqrt(1 - f^2) - f sqrt(1 - t^2)) / (|g_j| sqrt(1 - t^2)) g_j` added; then
    `t_ij <- (1 - beta) t_ij + beta f`. The targets start at 0, so the first step is
    that of `pcgrad` with the same seed. Targets act up to a cosine of 0.999, because
    the step towards 1 has no bound. A pair with an absent ability keeps its target.

    The targets reach the coefficients of abilities that agree, too: unlike in `pcgrad`,
    the weights come back only where no cosine is below its target.

    Raises:
      ValueError: unless `beta` is in [0, 1].
    """
    require(0 <= beta <= 1, "gradvac", "beta", beta, "a number in [0, 1]")

    def init(num_abilities):
        target_KK = jnp.zeros((num_abilities, num_abilities), jnp.float32)
        return GradVacState(jnp.zeros((), jnp.int32), target_KK)

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        cosines_KK, norms_K, present_K = cosine_gramian(gram_KK)
        rows_KK, seen_KK = _edit_rows(
            seed, state.step, cosines_KK, state.target_KK, present_K
        )
        coefficients_K = _combined(rows_KK, masked(weights_K, present_K), norms_K)
        target_KK = state.target_KK + beta * (seen_KK - state.target_KK)
        target_KK = jnp.where(jnp.isnan(seen_KK), state.target_KK, target_KK)
        return masked(coefficients_K, present_K), GradVacState(
            state.step + 1, target_KK
        )

    return Resolver(init, resolve)


def _combined(rows_KK, weights_K, norms_K):
    """`w^T C`, and the weights themselves where nothing was edited."""
    # Rows and columns are in units of the norms; only the ratios come back.
    shares_K = matmul(weights_K * norms_K, rows_KK) / norms_K
    edited = jnp.any(rows_KK != jnp.eye(len(norms_K), dtype=jnp.float32))
    return jnp.where(edited, shares_K, weights_K)


def _orders(seed, step, size: int) -> jax.Array:
    """For every gradient a random order of all; half the time of `permutation`."""
    if size <= 2:  # there is one other
        return jnp.tile(jnp.arange(size), (size, 1))
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jnp.argsort(jax.random.bits(key, (size, size)), axis=1)


def _edit_rows(seed, step, cosines_KK, targets_KK, present_K):
    """Every edited gradient as coefficients of the unit gradients; cosines met."""
    size = len(present_K)
    orders_KK = _orders(seed, step, size)
    return jax.vmap(_edit_row, (0, 0, None, 0, None, 0))(
        jnp.arange(size), orders_KK, cosines_KK, targets_KK, present_K, present_K
    )


@jax.jit  # so that a call outside of jit compiles once
def _edit_row(i, order_K, cosines_KK, target_K, present_K, present):
    def meet(row_K, j):
        product_K = matmul(cosines_KK, row_K)
        product = product_K[j]
        square = jnp.sum(row_K * product_K)
        size = jnp.sqrt(jnp.maximum(square, 0.0))
        cosine = jnp.clip(product / jnp.maximum(size, VANISHED), -1.0, 1.0)
        target = jnp.clip(target_K[j], -STEEPEST, STEEPEST)
        tangent = target / jnp.sqrt(1.0 - target**2)
        step = size * tangent * jnp.sqrt(1.0 - cosine**2) - product
        met = present & present_K[j] & (j != i)
        below = met & (product < target * size)
        added_K = jnp.where(below & (jnp.arange(len(row_K)) == j), step, 0.0)
        return row_K + added_K, jnp.where(met & (square > VANISHED), cosine, jnp.nan)

    start_K = (jnp.arange(len(order_K)) == i).astype(jnp.float32)
    row_K, cosines_K = lax.scan(meet, start_K, order_K)
    return row_K, jnp.zeros_like(cosines_K).at[order_K].set(cosines_K)
