"""From what is known of a task to a correction of the prior: a small set network.

Abilities are a set: they attend to each other (arXiv:1706.03762; without positions, as
in Set Transformers, arXiv:1810.00825), so their order does not matter and there may be
any number of them. Parameters are a plain nested dict of arrays, as in
`dcft_jax.models.decoder`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from dcft_jax.meta.features import ABILITY, PAIR, TASK
from dcft_jax.meta.inputs import Inputs

Params = dict[str, Any]


class Shape(NamedTuple):
    """Of the network.

    Attributes:
        width: of the token of an ability; a multiple of `heads`.
        heads: of the attention.
        blocks: attention and MLP, each.
        bound: no ability's log-ratio to the prior goes beyond it, nats (before
            centring): none starves, whatever the features are.
    """

    width: int = 32
    heads: int = 4
    blocks: int = 1
    bound: float = 3.0


Linear = functools.partial(nnx.Linear, kernel_init=nnx.initializers.zeros)
OUTPUTS = ("head", "direct")  # start at zero; other kernels are drawn by `init`


class Block(nnx.Module):
    """Attention over abilities, biased by pairs, and an MLP; both normalised before."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        width = shape.width
        self.heads = shape.heads
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(width, rngs=rngs)
        self.query_key_value = Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.pair_bias = Linear(2 * len(PAIR), shape.heads, rngs=rngs)
        self.out = Linear(width, width, rngs=rngs)
        self.up = Linear(width, 2 * width, rngs=rngs)
        self.down = Linear(2 * width, width, rngs=rngs)

    def __call__(self, x_KD: jax.Array, pair_KKP: jax.Array, valid_K: jax.Array):
        K, D = x_KD.shape
        packed_K3HC = self.query_key_value(self.attention_norm(x_KD)).reshape(
            K, 3, self.heads, D // self.heads
        )
        query_KHC, key_KHC, value_KHC = jnp.moveaxis(packed_K3HC, 1, 0)
        logits_HKK = jnp.einsum("khc,jhc->hkj", query_KHC, key_KHC)
        logits_HKK = logits_HKK / (D // self.heads) ** 0.5
        logits_HKK += jnp.moveaxis(self.pair_bias(pair_KKP), -1, 0)
        logits_HKK = jnp.where(valid_K, logits_HKK, -1e9)  # finite: no nan in gradients
        share_HKK = jax.nn.softmax(logits_HKK, axis=-1)
        mixed_KHC = jnp.einsum("hkj,jhc->khc", share_HKK, value_KHC)
        x_KD = x_KD + self.out(mixed_KHC.reshape(K, D))
        return x_KD + self.down(jax.nn.gelu(self.up(self.mlp_norm(x_KD))))


class Network(nnx.Module):
    """One score per ability, 0 for all of them before training."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        self.ability = Linear(2 * len(ABILITY) + 1, shape.width, rngs=rngs)
        self.task = Linear(2 * len(TASK), shape.width, rngs=rngs)
        self.blocks = nnx.List([Block(shape, rngs) for _ in range(shape.blocks)])
        self.norm = nnx.LayerNorm(shape.width, rngs=rngs)
        self.head = Linear(shape.width, 1, rngs=rngs)
        # A linear score is most of what few tasks can teach.
        self.direct = Linear(2 * len(ABILITY) + 1, 1, use_bias=False, rngs=rngs)

    def __call__(self, inputs: Inputs, log_prior_K: jax.Array) -> jax.Array:
        valid_K = inputs.valid_K
        ability_KF = jnp.concatenate(
            [
                inputs.ability_KF,
                inputs.known_ability_KF,
                centred(log_prior_K, valid_K)[:, None],
            ],
            axis=-1,
        )
        task_G = jnp.concatenate([inputs.task_G, inputs.known_task_G])
        pair_KKP = jnp.concatenate([inputs.pair_KKP, inputs.known_pair_KKP], axis=-1)
        x_KD = self.ability(ability_KF) + self.task(task_G)
        for block in self.blocks:
            x_KD = block(x_KD, pair_KKP, valid_K)
        return (self.head(self.norm(x_KD)) + self.direct(ability_KF))[:, 0]


@functools.partial(jax.jit, static_argnums=0)
def init(shape: Shape, key: jax.Array) -> Params:
    """Random parameters; under `vmap` over keys those of an ensemble.

    Raises:
      ValueError: the width is no multiple of the heads.
    """
    if shape.width % shape.heads:
        raise ValueError(
            f"width={shape.width} of the network must be a multiple of its "
            f"heads={shape.heads}"
        )
    params = nnx.to_pure_dict(nnx.state(Network(shape, nnx.Rngs(key)), nnx.Param))
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    # One draw for all: each draw is a program of its own to compile.
    drawn = iter(jnp.split(jax.random.normal(key, (size,)), _bounds(params)))

    def start(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        noise = next(drawn).reshape(leaf.shape)
        if path[0].key in OUTPUTS or path[-1].key != "kernel":
            return leaf
        return noise / leaf.shape[0] ** 0.5  # variance 1 / fan-in

    return jax.tree_util.tree_map_with_path(start, params)


@functools.partial(jax.jit, static_argnums=0)
def correction(
    shape: Shape, params: Params, inputs: Inputs, log_prior_K: jax.Array
) -> jax.Array:
    """Log-ratio to the prior, nats, [K]; its mean over valid abilities is 0.

    Exactly 0 for parameters as `init` returns them.

    Args:
      log_prior_K: finite; of padding it does not count.
    """
    network = nnx.merge(_structure(shape), params)
    score_K = network(inputs, log_prior_K)
    bounded_K = shape.bound * jnp.tanh(score_K / shape.bound)
    return centred(bounded_K, inputs.valid_K)


def tilt(log_prior_K: jax.Array, ratio_K: jax.Array, valid_K: jax.Array) -> jax.Array:
    """`prior exp(ratio)`, normalised; 0 for padding."""
    logits_K = jnp.where(valid_K, log_prior_K + ratio_K, -jnp.inf)
    return jax.nn.softmax(logits_K)


def centred(value_K: jax.Array, valid_K: jax.Array) -> jax.Array:
    """Less its mean over valid abilities; 0 for padding."""
    kept_K = jnp.where(valid_K, value_K, 0.0)
    mean = jnp.sum(kept_K) / jnp.maximum(jnp.sum(valid_K), 1)
    return jnp.where(valid_K, kept_K - mean, 0.0)


def _bounds(params: Params) -> list[int]:
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    return [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]


@functools.lru_cache(maxsize=32)
def _structure(shape: Shape) -> nnx.GraphDef[Network]:
    """The module without its arrays."""
    return nnx.graphdef(nnx.eval_shape(lambda: Network(shape, nnx.Rngs(0))))
