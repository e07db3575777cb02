"""Interpolated specialists as a proxy for models trained on a mixture.

A specialist is trained on one ability alone, as long as the others. The weighted mean
of their changes, `base + sum_k w_k (specialist_k - base)`, costs no training
(MergeMix, arXiv:2601.17858; OP-Mix, arXiv:2605.15220).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def interpolate(base: Any, specialists: Any, weights_NK: np.ndarray) -> Any:
    """Parameters of N interpolated models, leaves [N, ...].

    Args:
      base: what the specialists started from.
      specialists: leaves [K, ...].
      weights_NK: on the simplex.
    """

    def mix(whole: jax.Array, special_K: jax.Array) -> jax.Array:
        w_NK = jnp.asarray(weights_NK, jnp.float32)
        highest = jax.lax.Precision.HIGHEST
        return whole + jnp.tensordot(w_NK, special_K - whole, 1, precision=highest)

    return jax.tree.map(mix, base, specialists)
