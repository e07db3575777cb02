"""Ability x tier as one list of components, C of them, for the allocation."""

import jax
import jax.numpy as jnp
import numpy as np


def components(size_KT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`ability_C` and `tier_C` (int32) of the tiers whose size is not 0, on the host.

    Abilities in their order, the tiers of each from the easiest on: with one tier per
    ability, component k is ability k.
    """
    ability_C, tier_C = np.nonzero(np.asarray(size_KT) > 0)
    return ability_C.astype(np.int32), tier_C.astype(np.int32)


def component_weights(
    weights_K: jax.Array, share_KT: jax.Array, ability_C: np.ndarray, tier_C: np.ndarray
) -> jax.Array:
    """`w_k * share_kt` of each component, on the simplex."""
    return weights_K[ability_C] * share_KT[ability_C, tier_C]


def ability_sums(
    value_C: jax.Array, ability_C: np.ndarray, num_abilities: int
) -> jax.Array:
    """Sum over the components of each ability, such as its weight or its rows."""
    return jnp.zeros(num_abilities, value_C.dtype).at[ability_C].add(value_C)
