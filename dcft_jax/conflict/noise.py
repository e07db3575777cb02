"""How noisy the gradients of abilities are, free from the Gramian of their slots.

A squared norm of a mean of noisy gradients is too large, by the variance of the mean,
so cosines between minibatch gradients are too small: with true cosine -0.5 and a noise
scale of 1000 sequences, batches of 16 show -0.008. Products between *different* slots
of one ability have no such bias.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Noise:
    """float32; nan where an ability has fewer than two slots.

    The noise scale `noise_K / signal_K`, in response tokens, is the batch at which
    noise and signal are equal: about the critical batch size (McCandlish et al. 2018,
    "An Empirical Model of Large-Batch Training", arXiv:1812.06162, eq. 2.9). Both are
    unbiased, their ratio is not: average each over steps first.
    """

    signal_K: jax.Array  # unbiased squared norm of the true gradient; may be negative
    noise_K: jax.Array  # variance of the gradient of one response token, summed
    stderr_KK: jax.Array  # standard error of each inner product of two abilities


def slot_noise(gram_SS: jax.Array, count_S: jax.Array, share_KS: jax.Array) -> Noise:
    """What the products between slots tell about the noise within each ability.

    Slot s of ability k contributes the mean gradient of its tokens with the share
    `a_s = count_s / count_k`. Signal: the mean of the products of different slots.
    Standard errors: slots are the sampled units, so the spread of `<g_s, g_j>` over the
    slots of i, and the same with i and j exchanged, add up (the jackknife of a
    two-sample U-statistic to first order; Arvesen 1969).

    Args:
      gram_SS: float32 products of the gradients of the slots' summed losses.
      count_S: response tokens per slot.
      share_KS: as `ability_gramian` returns it.
    """
    gram_SS = jnp.where(jnp.isfinite(gram_SS), gram_SS, 0.0)
    member_KS = share_KS > 0
    part_KS = share_KS * count_S  # a_s
    num_K = jnp.sum(member_KS, axis=1)
    several_K = num_K > 1
    cross_KS = _matmul(share_KS, gram_SS)  # <g_k, sum-gradient of s>
    gram_KK = _matmul(cross_KS, share_KS.T)
    own_K = jnp.sum(share_KS**2 * jnp.diagonal(gram_SS), axis=1)
    squares_K = jnp.sum(part_KS**2, axis=1)
    distinct_K = jnp.where(several_K, 1.0 - squares_K, 1.0)
    signal_K = (jnp.diagonal(gram_KK) - own_K) / distinct_K
    count_K = jnp.sum(member_KS * count_S, axis=1)
    noise_K = (jnp.diagonal(gram_KK) - signal_K) * count_K
    # [i, j, s]: what slot s of i adds to <g_i, g_j> beyond its share.
    excess_KKS = (
        share_KS[:, None] * cross_KS[None] - part_KS[:, None] * gram_KK[..., None]
    )
    correction_K = num_K / jnp.where(several_K, num_K - 1.0, 1.0)
    variance_KK = correction_K[:, None] * jnp.sum(excess_KKS**2, axis=2)
    stderr_KK = jnp.sqrt(variance_KK + variance_KK.T)
    both_KK = several_K[:, None] & several_K
    return Noise(
        signal_K=jnp.where(several_K, signal_K, jnp.nan),
        noise_K=jnp.where(several_K, noise_K, jnp.nan),
        stderr_KK=jnp.where(both_KK, stderr_KK, jnp.nan),
    )


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
