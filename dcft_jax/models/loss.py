"""Token losses in float32 that accept logits split over the vocabulary.

Nothing here indexes the vocabulary axis: a lookup in a split axis would gather the
logits on every device, a masked sum or maximum stays local up to one small reduction.
"""

import jax
import jax.numpy as jnp


def token_nll(logits_BLV: jax.Array, targets_BL: jax.Array) -> jax.Array:
    """Negative log-likelihood of each target in nats, float32 [B, L].

    logsumexp(logits) minus the target's logit.
    """
    logits_BLV = logits_BLV.astype(jnp.float32)
    is_target_BLV = _vocabulary(logits_BLV) == targets_BL[..., None]
    picked_BL = jnp.sum(jnp.where(is_target_BLV, logits_BLV, 0.0), axis=-1)
    return jax.nn.logsumexp(logits_BLV, axis=-1) - picked_BL


def token_correct(logits_BLV: jax.Array, targets_BL: jax.Array) -> jax.Array:
    """Whether the most likely token is the target, bool [B, L]; the first of equals."""
    top_BL1 = jnp.max(logits_BLV, axis=-1, keepdims=True)
    last = logits_BLV.shape[-1]
    at_top_BLV = jnp.where(logits_BLV == top_BL1, _vocabulary(logits_BLV), last)
    return jnp.min(at_top_BLV, axis=-1) == targets_BL


def _vocabulary(logits_BLV: jax.Array) -> jax.Array:
    """Token identifiers [V], to compare with along the last axis."""
    return jnp.arange(logits_BLV.shape[-1], dtype=jnp.int32)
