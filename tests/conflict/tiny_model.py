"""A loss with everything that makes taps hard: a scan, remat and a tied embedding."""

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax.conflict import tap

S, B, L, K = 6, 4, 5, 3
VOCAB, WIDTH, LAYERS = 4, 8, 3
ABILITY_S = np.array([0, 1, 0, 2, 1, 0], np.int32)


def make_params(seed: int = 0) -> dict:
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        "embed": {"table": jax.random.normal(keys[0], (VOCAB, WIDTH)) * 0.3},
        "layers": {
            "kernel": jax.random.normal(keys[1], (LAYERS, WIDTH, WIDTH)) * 0.4,
            "bias": jax.random.normal(keys[2], (LAYERS, WIDTH)) * 0.1,
        },
    }


def make_slots(seed: int = 0) -> dict:
    """Each ability wants another answer to the same tokens, so they conflict."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, VOCAB, (S, B, L)).astype(np.int32)
    return {
        "tokens": tokens,
        "targets": (tokens + ABILITY_S[:, None, None]) % VOCAB,
        "mask": rng.random((S, B, L)) < 0.6,
    }


def loss_fn(params, frozen, slot, handles=None):
    """Sum of the losses of the masked tokens, and their number."""
    del frozen
    embed, layer_handles = params["embed"], None
    if handles is not None:
        embed, layer_handles = tap(embed, handles["embed"]), handles["layers"]

    def layer(x_BLD, layer):
        weights, handles = layer
        if handles is not None:
            weights = tap(weights, handles)
        return x_BLD + jnp.tanh(x_BLD @ weights["kernel"] + weights["bias"]), None

    x_BLD = embed["table"][slot["tokens"]]
    layer = jax.checkpoint(layer, prevent_cse=False)
    x_BLD, _ = jax.lax.scan(layer, x_BLD, (params["layers"], layer_handles))
    logits_BLV = x_BLD @ embed["table"].T
    nll_BL = -jnp.take_along_axis(
        jax.nn.log_softmax(logits_BLV), slot["targets"][..., None], axis=-1
    )[..., 0]
    mask_BL = slot["mask"]
    return jnp.sum(jnp.where(mask_BL, nll_BL, 0.0)), jnp.sum(mask_BL, dtype=jnp.float32)
