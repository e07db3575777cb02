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

    Args:
      gram_SS: float32, from `slot_gramian`.
      count_S, ability_S, num_abilities: see `slot_shares`.

    Returns:
      gram_KK: float32, zero rows and columns for the absent.
      mask_K: bool, which abilities are present.
      A_KS: float32, for `slot_coefficients`.
    """
    A_KS = slot_shares(gram_SS, count_S, ability_S, num_abilities)
    gram_KK = share_gramian(gram_SS, A_KS)
    return gram_KK, jnp.diagonal(gram_KK) > 0, A_KS


def slot_shares(
    gram_SS: jax.Array, count_S: jax.Array, ability_S: jax.Array, num_abilities: int
) -> jax.Array:
    """`A[k, s] = 1 / sum count` over the slots of ability k where s is one, float32.

    Slots without tokens or with a non-finite gradient are left out, numerator and
    denominator: one bad slot does not cost an ability its step.

    Args:
      gram_SS: float32, of all parameters.
      count_S: response tokens per slot.
      ability_S: int, in [0, num_abilities); a slot outside belongs to nobody.
    """
    count_S = jnp.asarray(count_S, jnp.float32)
    diagonal_S = jnp.diagonal(gram_SS)
    sound_S = jnp.isfinite(diagonal_S) & (count_S > 0)
    sound_S &= jnp.all(jnp.isfinite(gram_SS) | ~jnp.isfinite(diagonal_S), axis=1)
    member_KS = (jnp.arange(num_abilities)[:, None] == ability_S) & sound_S
    count_K = jnp.sum(jnp.where(member_KS, count_S, 0.0), axis=1)
    return member_KS / jnp.maximum(count_K, 1.0)[:, None]


def share_gramian(gram_SS: jax.Array, A_KS: jax.Array) -> jax.Array:
    """`A G A^T` over the slots that have a share, float32 `[K, K]`."""
    sound_S = jnp.any(A_KS > 0, axis=0)
    clean_SS = jnp.where(sound_S[:, None] & sound_S, gram_SS.astype(jnp.float32), 0.0)
    gram_KK = _matmul(_matmul(A_KS, clean_SS), A_KS.T)
    mask_K = jnp.diagonal(gram_KK) > 0
    return jnp.where(mask_K[:, None] & mask_K, gram_KK, 0.0)


def slot_coefficients(coefficients_K: jax.Array, A_KS: jax.Array) -> jax.Array:
    """`c_S = A^T c_K`: `sum_s c_s g_s = sum_k c_k g_k`. 0 for slots left out."""
    return _matmul(coefficients_K, A_KS)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
