"""Small decoders of every family, with parameters that leave no term out."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import base
from dcft_jax.models import ModelConfig, init

TINY = dict(
    num_layers=2,
    width=16,
    hidden=24,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    compute_dtype="float32",
)
GEMMA3 = dict(
    num_layers=3,
    activation="gelu",
    norm_offset=1.0,
    post_norms=True,
    qk_norm=True,
    query_scale=0.3,
    sliding_window=3,
    global_every=3,
    local_rope_theta=100.0,
    rope_scaling="linear",
    rope_scaling_factor=8.0,
    scale_embeddings=True,
)
FAMILIES = {
    "llama": dict(tie_embeddings=False),
    "qwen2": dict(qkv_bias=True),
    "qwen3": dict(qk_norm=True),
    "gemma2": dict(
        GEMMA3, qk_norm=False, attention_softcap=5.0, logits_softcap=3.0, global_every=2
    ),
    "gemma3": GEMMA3,
}
V = 32


def make(**fields) -> ModelConfig:
    config = base.get_config()
    config.model.update({**TINY, **fields})
    return ModelConfig.from_config(config.model, V, config.mesh.rules)


def random_params(config, seed=0):
    """Parameters with no special values, so that no term drops out."""
    shapes = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        start = 1.0 - config.norm_offset if path[-1].key == "scale" else 0.0
        value = start + 0.3 * rng.standard_normal(leaf.shape)
        return jnp.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def random_tokens(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, V, shape), jnp.int32)
