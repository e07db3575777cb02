"""Online data mixing: a bandit whose reward is the loss."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dcft_jax.mixture.checks import require, require_count, require_share
from dcft_jax.mixture.measured import bounded, from_zero, gain, known, or_average
from dcft_jax.mixture.rule import MixtureRule

VARIANTS = ("paper", "released")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OdmState:
    prior_K: jax.Array  # float32, the weights until the warm-up is over
    average_K: jax.Array  # float32, of the rewards ("released": its logarithm)
    count_K: jax.Array  # int32, how many rewards are in it
    num_updates: jax.Array  # int32


def odm(
    variant: str = "paper",
    smoothing: float | None = None,
    warmup_updates: int = 1,
    importance_weighted: bool = False,
) -> MixtureRule:
    """EXP3 on the train loss; a high loss is wanted, so it chases entropy.

    Online Data Mixing (Albalak et al. 2023, arXiv:2312.02406, algorithm 1). With
    `eps_t = min(1 / K, sqrt(ln K / (K t)))` at update t and alpha the smoothing,

        R <- alpha R + (1 - alpha) reward
        w = (1 - K eps_t) softmax(eps_(t-1) R) + eps_t               "paper"
        w = (1 - K eps_t) R / sum(R) + eps_t, reward = exp(loss)      "released"

    The second is what the authors' code does: w follows the perplexity.

    The reward is the mean train loss of the interval. The paper draws one ability at a
    time with probability w_k and sees nothing of the others, so it rewards
    `loss_k / w_k`, which has the right mean. Here all abilities are trained on in every
    interval; dividing by w_k would reward being rare, and is done only if
    `importance_weighted`, and only in "paper" (the code does not).

    t counts updates, where the paper counts steps. R starts at 0 as in the paper, but
    an ability measured less often than others is not lower for it. The prior is only
    the mixture of the warm-up.

    Args:
      smoothing: alpha, in [0, 1); None: 0.9 for "paper", 0.5 for "released".
      warmup_updates: updates that only measure. The paper: 1 % of the run.

    Raises:
      ValueError: for an unknown variant, a value out of range, or importance weights
        in "released".
    """
    require(variant in VARIANTS, "variant", repr(variant), f"one of {VARIANTS}")
    alpha = {"paper": 0.9, "released": 0.5}[variant] if smoothing is None else smoothing
    require_share("smoothing", alpha)
    require_count("warmup_updates", warmup_updates, 0)
    sound = variant == "paper" or not importance_weighted
    expected = 'False for variant "released"'
    require(sound, "importance_weighted", importance_weighted, expected)
    released = variant == "released"

    def weights(state):
        size = len(state.prior_K)
        explored = _exploration(state.num_updates, size)
        if released:
            logits_K = or_average(state.count_K > 0, state.average_K)
        else:
            before = _exploration(state.num_updates - 1, size)
            logits_K = before * from_zero(state.average_K, state.count_K, alpha)
        share = 1.0 - size * explored
        weights_K = share * jax.nn.softmax(logits_K) + explored
        return jnp.where(state.num_updates > warmup_updates, weights_K, state.prior_K)

    def update(feedback, state):
        loss_K = bounded(feedback.train_loss_K)
        known_K = known(feedback, feedback.train_loss_K)
        if importance_weighted:
            loss_K = bounded(loss_K / jnp.maximum(weights(state), 1e-6))
        count_K = state.count_K + known_K
        gain_K = gain(count_K, alpha)
        average = _average_of_exponentials if released else _average
        average_K = average(state.average_K, loss_K, gain_K)
        return OdmState(
            state.prior_K,
            jnp.where(known_K, average_K, state.average_K),
            count_K,
            state.num_updates + jnp.any(known_K),
        )

    return MixtureRule(_init, update, weights)


def _init(prior_K) -> OdmState:
    prior_K = jnp.array(prior_K, jnp.float32)
    zeros_K = jnp.zeros_like(prior_K)
    count_K = jnp.zeros(len(prior_K), jnp.int32)
    return OdmState(prior_K, zeros_K, count_K, jnp.zeros((), jnp.int32))


def _exploration(t: jax.Array, size: int) -> jax.Array:
    """eps_t; 1 / K before the first update."""
    t = jnp.maximum(t, 1).astype(jnp.float32)
    return jnp.minimum(1.0 / size, jnp.sqrt(jnp.log(float(size)) / (size * t)))


def _average(average_K, value_K, gain_K):
    return average_K + gain_K * (value_K - average_K)


def _average_of_exponentials(log_average_K, log_value_K, gain_K):
    kept_K = jnp.log(jnp.maximum(1.0 - gain_K, 0.0))
    return jnp.logaddexp(kept_K + log_average_K, jnp.log(gain_K) + log_value_K)
