"""Keys and values of the tokens so far, so that the next token costs one position.

All rows of a batch fill the same slots: shorter prompts are padded on the left. A slot
is then written with one scalar offset, and distances between slots are distances
between positions, as in training.

Axes: N layers, B rows, S slots, G key/value heads, C channels of one head.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dcft_jax import sharding
from dcft_jax.models.config import ModelConfig

AXES = (None, "batch", None, "kv_heads", None)


class Cache(NamedTuple):
    """Rotated keys, and values, in the compute dtype."""

    key_NBSGC: jax.Array
    value_NBSGC: jax.Array
    length: jax.Array  # int32: slots in use, the same for all rows
    start_B: jax.Array  # int32: the first slot of a row that is no padding


def empty_cache(config: ModelConfig, start_B: jax.Array, capacity: int) -> Cache:
    """Room for `capacity` tokens of each row.

    Args:
      start_B: int32, how many tokens of padding each row begins with.
    """
    rows, heads = start_B.shape[0], config.num_kv_heads
    shape = (config.num_layers, rows, capacity, heads, config.head_dim)
    spec = sharding.ambient_spec(config.rules, AXES)
    key, value = (jnp.zeros(shape, config.dtype, out_sharding=spec) for _ in range(2))
    return Cache(key, value, jnp.int32(0), start_B)


def write_layer(
    cache: Cache, layer: jax.Array, key_BLGC: jax.Array, value_BLGC: jax.Array
) -> tuple[Cache, jax.Array, jax.Array]:
    """Puts the keys and values of L tokens into the next L slots of one layer.

    The length stays: it moves once all layers are written. There must be room; an
    update beyond the end would be shifted back over earlier slots.

    Returns:
      The cache, and all keys and values of the layer, [B, S, G, C].
    """
    start = (layer, 0, cache.length, 0, 0)
    keys = jax.lax.dynamic_update_slice(cache.key_NBSGC, key_BLGC[None], start)
    values = jax.lax.dynamic_update_slice(cache.value_NBSGC, value_BLGC[None], start)
    cache = cache._replace(key_NBSGC=keys, value_NBSGC=values)
    key_BSGC, value_BSGC = (
        jax.lax.dynamic_index_in_dim(x, layer, keepdims=False) for x in (keys, values)
    )
    return cache, key_BSGC, value_BSGC
