"""Attention by blocks on TPUs: no array of the scores of a row is ever made.

The kernel is that of `jax.experimental.pallas.ops.tpu.splash_attention`
(FlashAttention-2, arXiv:2307.08691, leaving out blocks that the mask hides). Axes as in
layers.py.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as kernels
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask import (
    MultiHeadMask,
)
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from dcft_jax.models.config import ModelConfig

LANES = 128  # lengths are padded to a multiple of it
BLOCKS = (512, 256, 128)  # tokens of a block; the first that divides the length
PADDING = -1  # a segment of its own


def uses_splash(config: ModelConfig) -> bool:
    """Is the program traced for TPUs, and `config.attention` not "dense"?

    For TPUs: the mesh of `jax.set_mesh`, or without one the machine, has them. Not on a
    mesh of automatic axes, over which the compiler cannot split a kernel.
    """
    mesh = jax.sharding.get_abstract_mesh()
    device = mesh.abstract_device
    platform = device.platform if device is not None else jax.default_backend()
    automatic = AxisType.Auto in mesh.axis_types
    return config.attention == "auto" and platform == "tpu" and not automatic


def splash_attend(
    query_BLHC: jax.Array,
    key_BLGC: jax.Array,
    value_BLGC: jax.Array,
    segments_BL: jax.Array | None,
    windowed: jax.Array | bool,
    *,
    scale: float,
    cap: float = 0.0,
    window: int = 0,
    specs: tuple[P | None, P | None] = (None, None),
    interpret: bool = False,
) -> jax.Array:
    """As `attention.attend` with a causal mask within segments.

    Args:
      query_BLHC: queries; H is a multiple of G.
      key_BLGC: keys, one head for every H/G query heads.
      value_BLGC: values.
      segments_BL: int32; None: each row is one.
      windowed: whether queries see `window` keys back only, themselves included.
      scale: of the scores.
      cap: soft limit of the scaled scores; 0: none.
      window: keys of a window.
      specs: how queries, and keys and values, lie on the mesh; None: there is none.
      interpret: without a TPU: slow, and not under `jax.vmap` over an axis that a mesh
        splits, which JAX 0.10 does not lower.

    Returns:
      [B, L, H, C], in the dtype of the values.
    """
    if segments_BL is None:
        segments_BL = jnp.zeros_like(query_BLHC[..., 0, 0], jnp.int32)
    attend = functools.partial(
        _attend, scale=scale, cap=cap, window=window, interpret=interpret
    )
    spec, kv_spec = specs
    if isinstance(windowed, bool):
        attend, flag = functools.partial(attend, windowed=windowed), ()
    else:
        flag = (windowed,)
    if spec is not None and kv_spec is not None:
        # The kernel cannot be partitioned by the compiler: each device has its rows and
        # heads.
        attend = jax.shard_map(
            attend,
            in_specs=(spec, kv_spec, kv_spec, P(spec[0], None), *(P() for _ in flag)),
            out_specs=spec,
            check_vma=False,
        )
    return attend(query_BLHC, key_BLGC, value_BLGC, segments_BL, *flag)


def _attend(query, key, value, segments, windowed, *, scale, cap, window, interpret):
    """On one device."""
    length, num_heads = query.shape[1:3]
    padded = math.ceil(length / LANES) * LANES
    query = query * jnp.asarray(scale, query.dtype)
    query, key, value = (_by_head(x, padded) for x in (query, key, value))
    segments = jnp.pad(
        segments, ((0, 0), (0, padded - length)), constant_values=PADDING
    )

    def rows(window: int) -> Callable[..., jax.Array]:
        kernel = _kernel(num_heads, padded, window, cap, interpret)

        def row(query, key, value, segments) -> Any:
            return kernel(query, key, value, kernels.SegmentIds(segments, segments))

        return jax.vmap(row)

    args = (query, key, value, segments)
    if isinstance(windowed, bool):
        mixed = rows(window if windowed else 0)(*args)
    else:
        mixed = jax.lax.cond(windowed, rows(window), rows(0), *args)
    return mixed.transpose(0, 2, 1, 3)[:, :length].astype(value.dtype)


def _by_head(x_BLHC: jax.Array, padded: int) -> jax.Array:
    length = x_BLHC.shape[1]
    x_BLHC = jnp.pad(x_BLHC, ((0, 0), (0, padded - length), (0, 0), (0, 0)))
    return x_BLHC.transpose(0, 2, 1, 3)


def _kernel(num_heads: int, length: int, window: int, cap: float, interpret: bool):
    shape = (length, length)
    mask = kernels.CausalMask(shape)
    if window:
        mask = kernels.LocalMask(shape, (window - 1, 0), offset=0)
    block = next(size for size in BLOCKS if length % size == 0)
    return kernels.make_splash_mha_single_device(
        MultiHeadMask([mask] * num_heads),
        block_sizes=kernels.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        attn_logits_soft_cap=cap or None,
        interpret=interpret,
    )
