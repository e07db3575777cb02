"""Causal self-attention within segments, over all of a row or a sliding window.

Axes as in layers.py; S is the length seen as keys.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from dcft_jax import sharding
from dcft_jax.models import layers
from dcft_jax.models.cache import Cache, write_layer
from dcft_jax.models.config import ModelConfig
from dcft_jax.models.splash import splash_attend, uses_splash


class View(NamedTuple):
    """What a layer sees of a row; the same for all layers of one kind."""

    mask: jax.Array  # bool [B, L, S]: query position l may read key position s
    cos: jax.Array  # of the rotary angles, [B, L, 1, C/2]
    sin: jax.Array
    segments: jax.Array | None = None  # [B, L]; None: a row is one, or lies in a cache
    windowed: jax.Array | bool = False  # sees the sliding window only


class Attention(nnx.Module):
    """Grouped-query attention (arXiv:2305.13245) with rotary positions."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        width, size = config.width, config.head_dim
        query, key = (width, config.num_heads, size), (width, config.num_kv_heads, size)
        axes = ("embed", "heads", None)
        kv_axes = ("embed", "kv_heads", None)
        project = functools.partial(
            layers.Linear, config, "ND,DHC->NHC", bias=config.qkv_bias, rngs=rngs
        )
        self.query = project(query, axes, adapter="query")
        self.key = project(key, kv_axes, adapter="key")
        self.value = project(key, kv_axes, adapter="value")
        self.out = layers.Linear(
            config,
            "NHC,HCD->ND",
            (*query[1:], width),
            ("heads", None, "embed"),
            num_inputs=2,
            gain=0.5 / config.num_layers,
            adapter="out",
            rngs=rngs,
        )
        if config.qk_norm:
            self.query_norm = layers.RMSNorm(config, size)
            self.key_norm = layers.RMSNorm(config, size)

    def __call__(
        self,
        x_BLD: jax.Array,
        view: View,
        cache: Cache | None = None,
        layer: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """Attends to the row itself or, with a cache, to all that is in it by then.

        Args:
          layer: int32, which layer of the cache is this one's.
        """
        rules = self.config.rules
        heads = sharding.ambient_spec(rules, ("batch", None, "heads", None))
        kv_heads = sharding.ambient_spec(rules, ("batch", None, "kv_heads", None))
        query_BLHC = self.query(x_BLD, out_sharding=heads)
        key_BSGC = self.key(x_BLD, out_sharding=kv_heads)
        value_BSGC = self.value(x_BLD, out_sharding=kv_heads)
        if self.config.qk_norm:
            query_BLHC, key_BSGC = self.query_norm(query_BLHC), self.key_norm(key_BSGC)
        query_BLHC = layers.rotate(query_BLHC, view.cos, view.sin)
        key_BSGC = layers.rotate(key_BSGC, view.cos, view.sin)
        if cache is not None and layer is not None:
            cache, key_BSGC, value_BSGC = write_layer(
                cache, layer, key_BSGC, value_BSGC
            )
        # Grouping splits the heads into (G, H/G) and needs the mesh axis on G: not if
        # keys are laid out otherwise, nor if there is one group only.
        split = heads is not None and heads[2] is not None
        if heads != kv_heads or (split and key_BSGC.shape[2] == 1):
            key_BSGC = _repeat(key_BSGC, self.config.num_heads, heads)
            value_BSGC = _repeat(value_BSGC, self.config.num_heads, heads)
        scale, cap = self.config.attention_scale, self.config.attention_softcap
        attended = query_BLHC, key_BSGC, value_BSGC
        if cache is None and uses_splash(self.config):
            repeated = key_BSGC.shape[2] == self.config.num_heads
            mixed_BLHC = splash_attend(
                *attended,
                view.segments,
                view.windowed,
                scale=scale,
                cap=cap,
                window=self.config.sliding_window,
                specs=(heads, heads if repeated else kv_heads),
            )
        else:
            mixed_BLHC = attend(*attended, view.mask, scale=scale, cap=cap)
        outer = sharding.ambient_spec(rules, ("batch", None, None))
        return self.out(mixed_BLHC, out_sharding=outer), cache


def attend(
    query_BLHC: jax.Array,
    key_BSGC: jax.Array,
    value_BSGC: jax.Array,
    mask_BLS: jax.Array,
    *,
    scale: float,
    cap: float = 0.0,
) -> jax.Array:
    """Mean of the values, weighted by the softmax of the masked scores in float32.

    Args:
      query_BLHC: queries; H is a multiple of G.
      key_BSGC: keys, one head for every H/G query heads.
      value_BSGC: values.
      mask_BLS: True where a query may read a key; B may be 1. Every query must be
        allowed at least one key.
      scale: of the scores.
      cap: soft limit of the scaled scores; 0: none.

    Returns:
      [B, L, H, C], in the dtype of the values.
    """
    if cap:
        return _capped_attention(query_BLHC, key_BSGC, value_BSGC, mask_BLS, scale, cap)
    return jax.nn.dot_product_attention(
        query_BLHC, key_BSGC, value_BSGC, mask=mask_BLS[:, None], scale=scale
    )


def views(
    config: ModelConfig,
    length: int,
    segments_BL: jax.Array | None,
    positions_BL: jax.Array | None,
) -> tuple[View, View]:
    """The views of windowed and of global layers, in this order."""
    if positions_BL is None:
        positions_BL = jnp.arange(length)[None]
    # Distance along the row is, within a segment, the distance in positions.
    index = jnp.arange(length)
    distance_LS = index[:, None] - index[None, :]
    seen_BLS = (distance_LS >= 0)[None]
    if segments_BL is not None:
        # Padding is a segment like any other, so no query is left without a key.
        seen_BLS = seen_BLS & (segments_BL[:, :, None] == segments_BL[:, None, :])
    local, everything = _local_and_global(config, seen_BLS, distance_LS, positions_BL)
    return (
        local._replace(segments=segments_BL, windowed=True),
        everything._replace(segments=segments_BL),
    )


def cached_views(config: ModelConfig, length: int, cache: Cache) -> tuple[View, View]:
    """As `views`, of the next `length` tokens: they see the slots of the cache."""
    query_L = cache.length + jnp.arange(length)
    key_S = jnp.arange(cache.key_NBSGC.shape[2])
    distance_LS = query_L[:, None] - key_S[None, :]
    # Padding sees padding, so no query is left without a key.
    real_BL, real_BS = (
        slot[None] >= cache.start_B[:, None] for slot in (query_L, key_S)
    )
    seen_BLS = (distance_LS >= 0)[None] & (real_BL[:, :, None] == real_BS[:, None, :])
    positions_BL = query_L[None] - cache.start_B[:, None]
    return _local_and_global(config, seen_BLS, distance_LS, positions_BL)


def _local_and_global(
    config: ModelConfig,
    seen_BLS: jax.Array,
    distance_LS: jax.Array,
    positions_BL: jax.Array,
) -> tuple[View, View]:
    near_BLS = seen_BLS & (distance_LS < config.sliding_window)[None]
    return (
        View(near_BLS, *layers.rope_angles(config, positions_BL, local=True)),
        View(seen_BLS, *layers.rope_angles(config, positions_BL, local=False)),
    )


def _capped_attention(query_BLHC, key_BSGC, value_BSGC, mask_BLS, scale, cap):
    batch, length, heads, size = query_BLHC.shape
    groups = key_BSGC.shape[2]
    query = query_BLHC.reshape(batch, length, groups, heads // groups, size)
    scores = jnp.einsum(
        "BLGRC,BSGC->BGRLS", query, key_BSGC, preferred_element_type=jnp.float32
    )
    scores = layers.soft_cap(scores * scale, cap)
    scores = jnp.where(mask_BLS[:, None, None], scores, jnp.finfo(jnp.float32).min)
    shares = jax.nn.softmax(scores, axis=-1).astype(value_BSGC.dtype)
    mixed = jnp.einsum("BGRLS,BSGC->BLGRC", shares, value_BSGC)
    return mixed.reshape(query_BLHC.shape)


def _repeat(x_BSGC: jax.Array, num_heads: int, spec) -> jax.Array:
    """Each head H/G times, laid out as the query heads are."""
    repeats = num_heads // x_BSGC.shape[2]
    return jnp.repeat(x_BSGC, repeats, axis=2, out_sharding=spec)
