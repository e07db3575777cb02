"""What to log about a resolution. Everything follows from the Gramian."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from dcft_jax.conflict.gramian import cosine_gramian


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Diagnostics:
    cosines_KK: jax.Array  # nan where an ability is absent
    min_cosine: jax.Array  # over pairs of present abilities; nan if there is none
    conflict_rate: jax.Array  # share of those pairs with a negative cosine; nan if none
    coefficients_K: jax.Array  # what the resolver chose
    acted: jax.Array  # bool: some coefficient is not the mean's
    change: jax.Array  # ||update - mean|| / ||mean||


def diagnose(
    gram_KK: jax.Array, weights_K: jax.Array, coefficients_K: jax.Array
) -> Diagnostics:
    """Describes the conflict in `gram_KK` and what `coefficients_K` did about it."""
    cosines_KK, norms_K, present_K = cosine_gramian(gram_KK)
    both_KK = present_K[:, None] & present_K
    pair_KK = both_KK & ~jnp.eye(len(gram_KK), dtype=bool)
    num_pairs = jnp.sum(pair_KK)
    lowest = jnp.min(jnp.where(pair_KK, cosines_KK, 1.0), initial=1.0)
    negative = jnp.sum(pair_KK & (cosines_KK < 0))
    mean_K = jnp.where(present_K, weights_K, 0.0)
    difference_K = jnp.where(present_K, coefficients_K - mean_K, 0.0)
    mean_norm = _norm(mean_K * norms_K, cosines_KK)
    change = _norm(difference_K * norms_K, cosines_KK) / mean_norm
    return Diagnostics(
        cosines_KK=jnp.where(both_KK, cosines_KK, jnp.nan),
        min_cosine=jnp.where(num_pairs > 0, lowest, jnp.nan),
        conflict_rate=jnp.where(num_pairs > 0, negative / num_pairs, jnp.nan),
        coefficients_K=coefficients_K,
        acted=jnp.any(difference_K != 0),
        change=jnp.where(mean_norm > 0, change, 0.0),
    )


def _norm(combination_K: jax.Array, cosines_KK: jax.Array) -> jax.Array:
    image_K = jnp.matmul(cosines_KK, combination_K, precision=lax.Precision.HIGHEST)
    return jnp.sqrt(jnp.maximum(jnp.sum(combination_K * image_K), 0.0))
