"""Slots to abilities, in Gram space: no gradient is touched."""

import jax
import jax.numpy as jnp
from jax import lax


def ability_gramian(
    gram_SS: jax.Array, count_S: jax.Array, ability_S: jax.Array, num_abilities: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gramian of the abilities' token-mean gradients from that of the slots' sums.

    With `g_s` the gradient of the loss summed over the response tokens of slot s, the
    gradient of ability k is `g_k = sum_s g_s / sum_s count_s` over its slots, so
    `G_KK = A G_SS A^T` with `A[k, s] = 1 / sum count` where slot s belongs to k.
    Slots without tokens or with a non-finite gradient are left out, numerator and
    denominator: one bad slot does not cost an ability its step.

    Args:
      gram_SS: float32, from `slot_gramian`.
      count_S: response tokens per slot.
      ability_S: int, in [0, num_abilities); a slot outside belongs to nobody.

    Returns:
      gram_KK: float32, zero rows and columns for the absent.
      mask_K: bool, which abilities are present.
      A_KS: float32, for `slot_coefficients`.
    """
    gram_SS = gram_SS.astype(jnp.float32)
    count_S = jnp.asarray(count_S, jnp.float32)
    diagonal_S = jnp.diagonal(gram_SS)
    sound_S = jnp.isfinite(diagonal_S) & (count_S > 0)
    sound_S &= jnp.all(jnp.isfinite(gram_SS) | ~jnp.isfinite(diagonal_S), axis=1)
    member_KS = (jnp.arange(num_abilities)[:, None] == ability_S) & sound_S
    count_K = jnp.sum(jnp.where(member_KS, count_S, 0.0), axis=1)
    A_KS = member_KS / jnp.maximum(count_K, 1.0)[:, None]
    both_SS = sound_S[:, None] & sound_S
    clean_SS = jnp.where(both_SS, gram_SS, 0.0)
    gram_KK = _matmul(_matmul(A_KS, clean_SS), A_KS.T)
    mask_K = jnp.diagonal(gram_KK) > 0
    gram_KK = jnp.where(mask_K[:, None] & mask_K, gram_KK, 0.0)
    return gram_KK, mask_K, A_KS


def slot_coefficients(coefficients_K: jax.Array, A_KS: jax.Array) -> jax.Array:
    """`c_S = A^T c_K`: `sum_s c_s g_s = sum_k c_k g_k`. 0 for slots left out."""
    return _matmul(coefficients_K, A_KS)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
