"""From tokens of packed rows to the examples in them."""

import jax
import jax.numpy as jnp


def segment_sums(
    x_BL: jax.Array, segments_BL: jax.Array, num_segments: int
) -> jax.Array:
    """Sums over the tokens of each example of a row, float32 [B, M]."""
    member_BLM = segments_BL[..., None] == jnp.arange(1, num_segments + 1)
    x_BL = x_BL.astype(jnp.float32)
    return jnp.sum(jnp.where(member_BLM, x_BL[..., None], 0.0), axis=1)
