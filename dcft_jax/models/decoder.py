"""A decoder-only language model: NNX modules behind pure functions.

Parameters are a plain nested dict of arrays; the layers are stacked on a leading axis
[num_layers, ...] and run by `jax.lax.scan`, so compile time does not grow with depth.
Leaves are named `kernel`, `bias`, `scale` (norms) and `embedding`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from dcft_jax import sharding
from dcft_jax.models import attention, layers
from dcft_jax.models.attention import View
from dcft_jax.models.cache import Cache
from dcft_jax.models.config import ModelConfig, check_mesh
from dcft_jax.models.lora import combine, select

Params = dict[str, Any]
REMAT_POLICY = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "all_dots": jax.checkpoint_policies.dots_saveable,
}


STACKED = "layers"  # the entry of the parameters whose leaves have a layer axis


class Tap(NamedTuple):
    """Marks parameters where the model reads them, those of a stack layer by layer.

    `mark(params, handles)` returns the parameters; `handles` is like the parameters, or
    like a part of them, which is then the part that is marked. A leaf of its stack has
    a leading layer axis.
    """

    mark: Callable[[Any, Any], Any]
    handles: Any


class Block(nnx.Module):
    """Attention and MLP, each normalised before (and, if set, after) and added."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        norm = functools.partial(layers.RMSNorm, config, config.width)
        self.attention_norm, self.mlp_norm = norm(), norm()
        self.attention = attention.Attention(config, rngs)
        self.mlp = layers.MLP(config, rngs)
        self.post_norms = config.post_norms
        if config.post_norms:
            self.attention_post_norm, self.mlp_post_norm = norm(), norm()

    def __call__(
        self,
        x_BLD: jax.Array,
        view: View,
        cache: Cache | None = None,
        layer: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        update_BLD = self.attention_norm(x_BLD)
        update_BLD, cache = self.attention(update_BLD, view, cache, layer)
        if self.post_norms:
            update_BLD = self.attention_post_norm(update_BLD)
        x_BLD = x_BLD + update_BLD
        update_BLD = self.mlp(self.mlp_norm(x_BLD))
        if self.post_norms:
            update_BLD = self.mlp_post_norm(update_BLD)
        return x_BLD + update_BLD, cache


class Embedding(nnx.Module):
    """Table of token vectors, read by row; also the output map if tied."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        self.embedding = nnx.Param(layers.embedding_table(config, rngs))

    def __call__(self, tokens_BL: jax.Array) -> jax.Array:
        config = self.config
        table_VD = self.embedding[...]
        spec = sharding.ambient_spec(config.rules, ("batch", None, None))
        if spec is not None:
            # Whole rows first: the compiler would otherwise gather the activations.
            whole = sharding.ambient_spec(config.rules, ("vocab", None))
            table_VD = jax.sharding.reshard(table_VD, whole)
        # An identifier outside the vocabulary gives nan, not a neighbour's vector.
        rows_BLD = table_VD.at[tokens_BL].get(mode="fill", out_sharding=spec)
        rows_BLD = rows_BLD.astype(config.dtype)
        if config.scale_embeddings:
            rows_BLD = rows_BLD * jnp.asarray(config.width**0.5, config.dtype)
        return rows_BLD


class Decoder(nnx.Module):
    """Embedding, stacked blocks, final norm and, unless tied, the output map."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        self.embed = Embedding(config, rngs)
        make_block = functools.partial(Block, config)
        self.layers = jax.vmap(make_block)(rngs.split(config.num_layers))
        self.final_norm = layers.RMSNorm(config, config.width)
        if not config.tie_embeddings:
            shape, axes = (config.width, config.vocab_size), ("embed", "vocab")
            self.head = layers.Linear(config, "ND,DV->NV", shape, axes, rngs=rngs)

    def hidden(self, tokens_BL, segments_BL, positions_BL, tap=None) -> jax.Array:
        views = attention.views(
            self.config, tokens_BL.shape[1], segments_BL, positions_BL
        )
        handles = None if tap is None else tap.handles[STACKED]
        mark = None if tap is None else tap.mark
        return self._run(tokens_BL, views, mark=mark, handles=handles)[0]

    def extend(self, tokens_BL, cache: Cache) -> tuple[jax.Array, Cache]:
        length = tokens_BL.shape[1]
        views = attention.cached_views(self.config, length, cache)
        x_BLD, cache = self._run(tokens_BL, views, cache)
        return x_BLD, cache._replace(length=cache.length + length)

    def _run(
        self, tokens_BL, views, cache=None, *, mark=None, handles=None
    ) -> tuple[jax.Array, Any]:
        """The layers, on a row of its own or on tokens that follow a cache."""
        config = self.config
        local, everything = views
        is_local = config.is_local()
        mixed = len(set(is_local)) > 1

        def step(carry, layer):
            block, flag, index, handles = layer
            if mark is not None:
                structure, arrays = nnx.split(block)
                arrays = _mark(mark, nnx.to_pure_dict(arrays), handles)
                block = nnx.merge(structure, arrays)
            view = local if is_local[0] else everything
            if mixed:
                pick = functools.partial(jnp.where, flag)
                view = jax.tree.map(pick, local, everything)
            # The cache is carried, not scanned over: it is then written in place.
            x_BLD, cache = carry
            return block(x_BLD, view, cache, index), None

        if config.remat != "none":
            # Inside a scan nothing can be merged with the recomputation anyway.
            policy = REMAT_POLICY[config.remat]
            step = jax.checkpoint(step, policy=policy, prevent_cse=False)
        index = None if cache is None else jnp.arange(config.num_layers)
        xs = (self.layers, jnp.asarray(is_local), index, handles)
        (x_BLD, cache), _ = jax.lax.scan(step, (self.embed(tokens_BL), cache), xs)
        return self.final_norm(x_BLD), cache

    def unembed(self, x_BLD: jax.Array) -> jax.Array:
        config = self.config
        spec = sharding.ambient_spec(config.rules, ("batch", None, "vocab"))
        if config.tie_embeddings:
            equation, kernel = "ND,VD->NV", self.embed.embedding[...]
        else:
            equation, kernel = "ND,DV->NV", self.head.kernel[...]
        logits_BLV = layers.map_tokens(
            equation,
            x_BLD,
            kernel.astype(config.dtype),
            spec,
            preferred_element_type=jnp.float32,
        )
        return layers.soft_cap(logits_BLV, config.logits_softcap)


@functools.partial(jax.jit, static_argnums=0)
def init(config: ModelConfig, key: jax.Array) -> Params:
    """Random parameters, every shard drawn in place on the mesh of `jax.set_mesh`.

    Raises:
      ValueError: if the mesh splits an axis of the parameters unevenly.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.explicit_axes:
        check_mesh(config, mesh)
    return nnx.to_pure_dict(nnx.state(Decoder(config, nnx.Rngs(key)), nnx.Param))


def apply(
    config: ModelConfig,
    params: Params,
    tokens_BL: jax.Array,
    segments_BL: jax.Array | None = None,
    positions_BL: jax.Array | None = None,
    tap: Tap | None = None,
) -> jax.Array:
    """Next-token logits.

    Args:
      config: the decoder.
      params: as returned by `init`.
      tokens_BL: int32 token identifiers.
      segments_BL: int32; tokens see only their own segment. None: one segment per row.
      positions_BL: int32, of the rotary embedding. None: the index in the row, which
        gives the same logits, as only differences within a segment count.
      tap: see `Tap`; each parameter is marked once, also tied embeddings.

    Returns:
      float32 [B, L, V]; on a mesh split over rows and vocabulary.
    """
    params = mark(params, tap)
    x_BLD = hidden(config, params, tokens_BL, segments_BL, positions_BL, tap)
    return unembed(config, params, x_BLD)


def mark(params: Params, tap: Tap | None) -> Params:
    """Marks what is read outside the stack: once, also embeddings that are tied."""
    if tap is None:
        return params
    return {
        name: _mark(tap.mark, part, tap.handles[name])
        if name != STACKED and name in tap.handles
        else part
        for name, part in params.items()
    }


def hidden(
    config: ModelConfig,
    params: Params,
    tokens_BL: jax.Array,
    segments_BL: jax.Array | None = None,
    positions_BL: jax.Array | None = None,
    tap: Tap | None = None,
) -> jax.Array:
    """Final normalised activations [B, L, D] in the compute dtype; see `apply`.

    `tap` marks the stack, layer by layer; for the other parameters there is `mark`.
    """
    return _merge(config, params).hidden(tokens_BL, segments_BL, positions_BL, tap)


def extend(
    config: ModelConfig, params: Params, tokens_BL: jax.Array, cache: Cache
) -> tuple[jax.Array, Cache]:
    """As `hidden`, for tokens that follow those in the cache; they are added to it.

    The cache must have room for L more tokens (see `write_layer`).

    Returns:
      [B, L, D], and the longer cache.
    """
    return _merge(config, params).extend(tokens_BL, cache)


def unembed(config: ModelConfig, params: Params, x_BLD: jax.Array) -> jax.Array:
    """Logits, float32 [B, L, V], of the activations that `hidden` returns."""
    return _merge(config, params).unembed(x_BLD)


def _mark(mark, params: Any, handles: Any) -> Any:
    return combine(params, mark(select(params, handles), handles))


def _merge(config: ModelConfig, params: Params) -> Decoder:
    return nnx.merge(_structure(config), params)


@functools.lru_cache(maxsize=32)
def _structure(config: ModelConfig) -> nnx.GraphDef[Decoder]:
    """The module without its arrays."""
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        return nnx.graphdef(nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0))))
