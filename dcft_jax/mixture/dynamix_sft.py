"""DynamixSFT: a bandit whose reward is what one step on an ability would bring."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dcft_jax.mixture.checks import require, require_share
from dcft_jax.mixture.measured import from_zero, gain, known
from dcft_jax.mixture.rule import VIRTUAL_STEP, MixtureRule
from dcft_jax.mixture.simplex import log_of, mix_floor

TINY = 1e-8  # the paper's epsilon, of which it gives no value


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DynamixState:
    log_prior_K: jax.Array  # float32
    average_K: jax.Array  # float32, of the rewards
    count_K: jax.Array  # int32, how many rewards are in it


def dynamix_sft(
    sharpness: float = 4.0, smoothing: float = 0.95, floor: float = 0.3
) -> MixtureRule:
    """Boltzmann exploration around the prior, rewarded by one step of look-ahead.

    DynamixSFT (Shin et al. 2025, arXiv:2508.12116, equations 2 to 5). With L the loss
    on one batch of ability k before and after one step on that batch alone,

        r_k = (L_before - L_after) / L_before, scaled to [0, 1] over the abilities
        Q_k <- alpha Q_k + (1 - alpha) r_k
        w = (1 - gamma) softmax(beta Q + log prior) + gamma / K

    with beta the sharpness, alpha the smoothing and gamma the floor. The relative
    decrease is that of the mean loss of the batch, where the paper averages the
    relative decreases of the samples. Q starts at 0, but an ability measured less often
    than others is not lower for it. Less than two rewards cannot be scaled and are
    ignored; equal ones become 1/2.

    Args:
      sharpness: beta, >= 0. The paper: 4 for 1B, 5 for 8B parameters.
      smoothing: alpha, in [0, 1).
      floor: gamma, in [0, 1).

    Raises:
      ValueError: for a value out of range.
    """
    sound = 0 <= sharpness < float("inf")
    require(sound, "sharpness", sharpness, "a number in [0, inf)")
    require_share("smoothing", smoothing)
    require_share("floor", floor)

    def update(feedback, state):
        before_K, after_K = feedback.virtual_before_K, feedback.virtual_after_K
        reward_K = (before_K - after_K) / (before_K + TINY)
        known_K = known(feedback, reward_K)
        known_K = known_K & (jnp.sum(known_K) > 1)
        count_K = state.count_K + known_K
        change_K = _scaled(reward_K, known_K) - state.average_K
        average_K = state.average_K + gain(count_K, smoothing) * change_K
        average_K = jnp.where(known_K, average_K, state.average_K)
        return DynamixState(state.log_prior_K, average_K, count_K)

    def weights(state):
        value_K = from_zero(state.average_K, state.count_K, smoothing)
        policy_K = jax.nn.softmax(sharpness * value_K + state.log_prior_K)
        return mix_floor(policy_K, floor)

    return MixtureRule(_init, update, weights, needs=frozenset({VIRTUAL_STEP}))


def _init(prior_K) -> DynamixState:
    return DynamixState(
        log_prior_K=log_of(prior_K),
        average_K=jnp.zeros(len(prior_K), jnp.float32),
        count_K=jnp.zeros(len(prior_K), jnp.int32),
    )


def _scaled(reward_K: jax.Array, known_K: jax.Array) -> jax.Array:
    """From 0 for the lowest known one to 1 for the highest."""
    # Half of each first: their difference could overflow.
    half_K = 0.5 * reward_K
    lowest = jnp.min(jnp.where(known_K, half_K, jnp.inf))
    spread = jnp.max(jnp.where(known_K, half_K, -jnp.inf)) - lowest
    return jnp.where(spread > 0, (half_K - lowest) / spread, 0.5)
