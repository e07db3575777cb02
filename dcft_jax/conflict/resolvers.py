"""Resolvers: from the Gramian of the abilities to coefficients of their gradients.

A resolver is a pair of pure functions over an explicit state, as in optax. It sees
K x K numbers only, so it costs nothing next to a training step, and it can be jitted,
vmapped and differentiated around. For every resolver here:

- an ability that is absent (`G_kk == 0`) or whose row is not finite gets coefficient
  0 and takes no part in anything; the weights of the others are not renormalised;
- where nothing conflicts the coefficients are the weights, bit by bit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dcft_jax.conflict.gramian import cosine_gramian
from dcft_jax.conflict.solver import solve_nnqp


class Resolver(NamedTuple):
    """`init(num_abilities) -> state`;
    `resolve(gram_KK, weights_K, state) -> (coefficients_K, state)`.

    The update is `sum_k c_k g_k`. `gram_KK` is `<g_i, g_j>`, float32, any scale;
    `weights_K` is not negative; `coefficients_K` is float32. The state is a pytree of
    arrays that belongs into the checkpoint.
    """

    init: Callable[[int], Any]
    resolve: Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


def mean() -> Resolver:
    """The weighted mean of the gradients: `c = w`. The baseline of all the others."""

    def resolve(gram_KK, weights_K, state):
        _, _, present_K = cosine_gramian(gram_KK)
        return _masked(weights_K, present_K), state

    return Resolver(lambda num_abilities: (), resolve)


class PCGradState(NamedTuple):
    step: jax.Array  # int32: the orders of the projections depend on it


def pcgrad(seed: int = 0) -> Resolver:
    """Projects each gradient off those it conflicts with, one after the other.

    Yu et al. 2020, "Gradient Surgery for Multi-Task Learning" (arXiv:2001.06782),
    algorithm 1, exactly, in Gram space and in the mean form: `c = w^T C`, where row i
    of C holds the projected gradient i as coefficients of all gradients. The order in
    which gradient i meets the others is random, from `seed` and the number of steps in
    the state. With three or more abilities some may still lose: the projections undo
    each other.
    """

    def init(num_abilities):
        return PCGradState(jnp.zeros((), jnp.int32))

    def resolve(gram_KK, weights_K, state):
        cosines_KK, norms_K, present_K = cosine_gramian(gram_KK)
        weights_K = _masked(weights_K, present_K)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        keys_K = jax.random.split(key, len(norms_K))
        orders_KK = jax.vmap(lambda k: jax.random.permutation(k, len(norms_K)))(keys_K)
        rows_KK = jax.vmap(_project, (0, 0, None))(
            jnp.arange(len(norms_K)), orders_KK, cosines_KK
        )
        # Rows and columns are in units of the norms; only the ratios come back.
        shares_K = _matmul(weights_K * norms_K, rows_KK) / norms_K
        conflict = jnp.any(cosines_KK < 0)
        coefficients_K = jnp.where(conflict, shares_K, weights_K)
        return _masked(coefficients_K, present_K), PCGradState(state.step + 1)

    return Resolver(init, resolve)


def dualproj(ridge: float = 1e-4) -> Resolver:
    """The update closest to the weighted mean that is against no ability.

    `c = argmin_{v >= w} v^T G v`, the projection of the mean on the cone of updates
    whose inner product with every gradient is not negative (Lopez-Paz and Ranzato 2017,
    "Gradient Episodic Memory", arXiv:1706.08840, in its dual form). It acts only
    if the mean itself is against an ability.

    Solved on the cosine Gramian, for `x = v - w` in units of the norms, with `ridge`
    added to its diagonal: the coefficients do not depend on the scale of the gradients,
    and stay finite for antiparallel and repeated ones.

    Raises:
      ValueError: unless `ridge` is in (0, 1].
    """
    if not 0 < ridge <= 1:
        raise ValueError(
            f"dualproj: ridge is {ridge}, expected in (0, 1]; float32 needs about 1e-4."
        )

    def resolve(gram_KK, weights_K, state):
        cosines_KK, norms_K, present_K = cosine_gramian(gram_KK)
        weights_K = _masked(weights_K, present_K)
        mean_K = weights_K * norms_K
        largest = jnp.max(mean_K, initial=0.0)
        scale = jnp.where(largest > 0, largest, 1.0)
        linear_K = _matmul(cosines_KK, mean_K / scale)
        ridged_KK = cosines_KK + ridge * jnp.eye(len(norms_K), dtype=jnp.float32)
        x_K = solve_nnqp(ridged_KK, linear_K) * scale / norms_K
        coefficients_K = jnp.where(jnp.any(x_K > 0), weights_K + x_K, weights_K)
        return _masked(coefficients_K, present_K), state

    return Resolver(lambda num_abilities: (), resolve)


RESOLVERS: dict[str, Callable[..., Resolver]] = {
    "mean": mean,
    "pcgrad": pcgrad,
    "dualproj": dualproj,
}


def _masked(values_K: jax.Array, present_K: jax.Array) -> jax.Array:
    return jnp.where(present_K, values_K.astype(jnp.float32), 0.0)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _project(i: jax.Array, order_K: jax.Array, cosines_KK: jax.Array) -> jax.Array:
    """Gradient i after its projections, as coefficients of the unit gradients."""

    def meet(row_K, j):
        product = jnp.sum(row_K * cosines_KK[j])
        against = (product < 0) & (j != i)
        other_K = jnp.arange(len(row_K)) == j
        return row_K - jnp.where(against & other_K, product, 0.0), None

    start_K = (jnp.arange(len(order_K)) == i).astype(jnp.float32)
    return lax.scan(meet, start_K, order_K)[0]
