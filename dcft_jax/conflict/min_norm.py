"""Resolvers that raise the progress of the worst-off ability."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dcft_jax.conflict.algebra import (
    divide,
    length,
    masked,
    matmul,
    require,
    rescaled,
    restrict,
    ridged,
)
from dcft_jax.conflict.gramian import cosine_gramian
from dcft_jax.conflict.resolver import NOTHING, Resolver
from dcft_jax.conflict.solver import refine_nnqp, solve_nnqp

RIDGE = 1e-4  # on the cosine Gramian
RIDGE_SHARE = 0.01  # of a squared length
RADIUS_TOLERANCE = 1e-5
MAX_NEWTON_STEPS = 16


def mgda() -> Resolver:
    """The shortest combination of the gradients: all abilities get the same progress.

    With equal weights `c = argmin v^T G v` over `v >= 0, sum v = sum w` (Desideri 2012;
    Sener and Koltun 2018, arXiv:1810.04650): against no ability, and 0 just
    where no common descent exists. Small gradients get large coefficients. With other
    weights p it is the same for the gradients `g_k / p_k`, so that abilities in the
    active set progress in proportion to their weight, `<g_k, d> = p_k t`; one with
    weight 0 takes no part. The sum of the coefficients is that of the weights.

    Solved exactly, as `argmin_{y >= 0} y^T C y / 2 - sum y_k / |g_k|` for `y_k` in
    proportion to `v_k |g_k|`.
    """

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        cosines_KK, norms_K, present_K = cosine_gramian(gram_KK)
        weights_K = masked(weights_K, present_K)
        kept_K = weights_K > 0
        demand_K = jnp.where(kept_K, weights_K / norms_K, 0.0)
        demand_K = divide(demand_K, jnp.max(demand_K, initial=0.0))
        y_K = refine_nnqp(restrict(cosines_KK, kept_K), -demand_K, RIDGE)
        return rescaled(y_K / norms_K, jnp.sum(weights_K)), state

    return Resolver(lambda num_abilities: (), resolve)


def cagrad(radius: float = 0.5) -> Resolver:
    """The best update for the worst-off ability in a ball around the weighted mean.

    `d = argmax min_k <g_k, d>` within `|d - g_0| <= radius |g_0|`, where `g_0` is the
    weighted mean (Liu et al. 2021, "Conflict-Averse Gradient Descent",
    arXiv:2110.14048, algorithm 1, without its final rescaling by
    `1 / (1 + radius^2)`). From 1 on, the update is against no ability; 0 is the mean,
    and towards infinity the direction is that of `mgda`.

    `c = w + x`, where `x(t) = argmin_{x >= 0} x^T G x / 2 - sum_k (t - <g_k, g_0>) x_k`
    is the shortest change for which every `<g_k, d> >= t`. Its length is convex and
    increasing in t, so Newton's method from above finds the t of the given radius in a
    few steps. Where the gradients cancel so far that no change within the radius
    matters, `x` is what makes `<g_k, d> >= 0`, and may be shorter than the radius.

    Raises:
      ValueError: unless `radius` is in [0, 100].
    """
    require(0 <= radius <= 100, "cagrad", "radius", radius, "a number in [0, 100]")

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        cosines_KK, norms_K, present_K = cosine_gramian(gram_KK)
        weights_K = masked(weights_K, present_K)
        mean_K = weights_K * norms_K
        scale = jnp.max(mean_K, initial=0.0)
        mean_K = divide(mean_K, scale)
        # In units of the smallest norm: `<u_k, d> >= t b_k` with b in [0, 1].
        smallest = jnp.min(jnp.where(present_K, norms_K, 1.0), initial=1.0)
        b_K = jnp.where(present_K, smallest / norms_K, 0.0)
        reach = radius * length(mean_K, cosines_KK)
        y_K = _largest_change(cosines_KK, mean_K, b_K, reach)
        return masked(weights_K + y_K * scale / norms_K, present_K), state

    return Resolver(lambda num_abilities: (), resolve)


class _Newton(NamedTuple):
    step: jax.Array
    t: jax.Array  # where to go next
    y_K: jax.Array  # of the last t
    size: jax.Array


@jax.jit  # so that a call outside of jit compiles once
def _largest_change(cosines_KK, mean_K, b_K, reach):
    """`x(t)` of length `reach`, in units of the norms."""
    matrix_KK = ridged(cosines_KK, RIDGE)
    slope_K = matmul(cosines_KK, mean_K)

    def unfinished(now):
        wide = now.size - reach > RADIUS_TOLERANCE * reach
        return (now.step < MAX_NEWTON_STEPS) & wide

    def improve(now):
        y_K = solve_nnqp(matrix_KK, slope_K - now.t * b_K)
        size = length(y_K, matrix_KK)
        # d(size^2)/dt = 2 sum b y, because y is the optimum for its t.
        slope = divide(jnp.sum(b_K * y_K), size)
        return _Newton(now.step + 1, now.t - divide(size - reach, slope), y_K, size)

    bound = _upper_bound(slope_K, mean_K, b_K, reach)
    start = _Newton(jnp.int32(0), bound, jnp.zeros_like(b_K), jnp.float32(jnp.inf))
    y_K = lax.while_loop(unfinished, improve, start).y_K
    size = length(y_K, cosines_KK)
    # Where gradients cancel, the length is that of the ridge, and y as large as it
    # lets it be: then nobody can gain, and nobody losing is all there is to ask for.
    cancels = RIDGE * jnp.sum(y_K**2) > RIDGE_SHARE * size**2
    harmless_K = solve_nnqp(matrix_KK, slope_K)
    cancels &= length(harmless_K, cosines_KK) <= reach
    y_K = jnp.where(cancels, harmless_K, y_K * divide(reach, size))
    return jnp.where(reach > 0, y_K, 0.0)


def _upper_bound(slope_K, mean_K, b_K, reach):
    """No t is larger: each ability alone, and their mean, progress no faster."""
    alone_K = jnp.where(b_K > 0, divide(slope_K + reach, b_K), jnp.inf)
    square = jnp.maximum(jnp.sum(mean_K * slope_K), 0.0)
    together = square + reach * jnp.sqrt(square)
    total = jnp.sum(mean_K * b_K)
    together = jnp.where(total > 0, divide(together, total), jnp.inf)
    bound = jnp.minimum(jnp.min(alone_K, initial=jnp.inf), together)
    return jnp.where(jnp.isfinite(bound), bound, 0.0)
