"""A few digits that tell whether a state is the one that was saved.

Orbax notices files that are missing, cut off or of another format, but not a flipped
bit inside an array.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dcft_jax.config import content_hash

_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def fingerprint(state: object) -> str:
    """Twelve hex digits. The same however the state is laid out over devices: sums over
    the hashed words of each array modulo 2^32, in which order does not matter.
    """
    return content_hash(np.asarray(_sums(state)).tolist())


@jax.jit
def _sums(state: object) -> jax.Array:
    return jnp.stack([jnp.sum(_mix(_words(leaf))) for leaf in jax.tree.leaves(state)])


def _words(leaf: jax.Array) -> jax.Array:
    if leaf.dtype != jnp.bool:
        leaf = lax.bitcast_convert_type(leaf, _WORDS[leaf.dtype.itemsize])
    return leaf.astype(jnp.uint32)


def _mix(word: jax.Array) -> jax.Array:
    """lowbias32 of Wellons 2018: in a sum of plain words two flipped signs cancel."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word ^ (word >> 16)
