"""Choosing the next token from logits: greedy, or drawn from what is left of them.

Temperature comes first, then top-k, then top-p, as is usual: top-k looks at nothing
else than ranks, and top-p at the distribution that temperature and top-k leave.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to choose a token; hashable, a static argument of `jax.jit`.

    Attributes:
      temperature: divides the logits; 0: greedy, the first of the most likely tokens.
      top_k: only the k most likely tokens; 0: all.
      top_p: only the fewest tokens that together reach this probability (nucleus
        sampling, arXiv:1904.09751); 1: all.

    Raises:
      ValueError: a value is out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ValueError(
                f"temperature={self.temperature} must be a number of at least 0; "
                "0 is greedy, 1 samples from the model as it is"
            )
        if self.top_k < 0 or self.top_k != int(self.top_k):
            raise ValueError(
                f"top_k={self.top_k} must be a whole number of at least 0; "
                "0 keeps all tokens"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p={self.top_p} must be in (0, 1]; 1 keeps all tokens, and for "
                "the most likely token alone set temperature=0"
            )


def choose(sampling: Sampling, logits_BV: jax.Array, key_B: jax.Array) -> jax.Array:
    """One token of each row, int32 [B].

    A draw is the argmax of logits plus Gumbel noise from the row's own key.

    Args:
      logits_BV: float32.
      key_B: typed keys.
    """
    if sampling.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = filter_logits(sampling, logits_BV)
    return jax.vmap(jax.random.categorical)(key_B, logits_BV).astype(jnp.int32)


def filter_logits(sampling: Sampling, logits_BV: jax.Array) -> jax.Array:
    """Scaled logits, -inf where a token is ruled out; temperature is above 0."""
    # Against the largest: a tiny temperature then gives -inf, never inf - inf.
    top_B1 = jnp.max(logits_BV, axis=-1, keepdims=True)
    logits_BV = (logits_BV - top_B1) / sampling.temperature
    if 0 < sampling.top_k < logits_BV.shape[-1]:
        logits_BV = keep_top_k(logits_BV, sampling.top_k)
    if sampling.top_p < 1:
        logits_BV = keep_top_p(logits_BV, sampling.top_p)
    return logits_BV


def keep_top_k(logits_BV: jax.Array, k: int) -> jax.Array:
    """-inf below the k-th largest logit; all that equal it stay."""
    least_B1 = jax.lax.top_k(logits_BV, k)[0][:, -1:]
    return jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)


def keep_top_p(logits_BV: jax.Array, p: float) -> jax.Array:
    """-inf where the more likely tokens have p or more; equals stay or go together.

    The most likely token has nothing above it and always stays.
    """
    sorted_BV = jnp.sort(logits_BV, axis=-1, descending=True)
    mass_BV = jnp.cumsum(jax.nn.softmax(sorted_BV, axis=-1), axis=-1)
    above_BV = jnp.concatenate([jnp.zeros_like(mass_BV[:, :1]), mass_BV[:, :-1]], 1)
    kept_BV = jnp.where(above_BV < p, sorted_BV, jnp.inf)
    least_B1 = jnp.min(kept_BV, axis=-1, keepdims=True)
    return jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)
