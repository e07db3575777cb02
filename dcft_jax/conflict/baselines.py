"""What every other resolver has to beat."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dcft_jax.conflict.algebra import masked, rescaled
from dcft_jax.conflict.gramian import cosine_gramian
from dcft_jax.conflict.resolver import NOTHING, Resolver


def mean() -> Resolver:
    """The weighted mean of the gradients: `c = w`. The baseline of all the others."""

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        _, _, present_K = cosine_gramian(gram_KK)
        return masked(weights_K, present_K), state

    return Resolver(lambda num_abilities: (), resolve)


class RandomState(NamedTuple):
    step: jax.Array  # int32: the draws depend on it


def random_weights(seed: int = 0) -> Resolver:
    """New random weights every step: `c` in proportion to `w softmax(z)`, z normal.

    The sum of the weights of those present is kept. Lin et al. 2022, "Reasonable
    Effectiveness of Random Weighting" (arXiv:2111.10603), with weights. It sees no
    conflict at all: what does not beat it has not shown that seeing helps.
    """

    def init(num_abilities):
        return RandomState(jnp.zeros((), jnp.int32))

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        _, _, present_K = cosine_gramian(gram_KK)
        weights_K = masked(weights_K, present_K)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        drawn_K = jax.nn.softmax(jax.random.normal(key, weights_K.shape))
        coefficients_K = rescaled(weights_K * drawn_K, jnp.sum(weights_K))
        return coefficients_K, RandomState(state.step + 1)

    return Resolver(init, resolve)
