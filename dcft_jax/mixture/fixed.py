"""Rules that do not look at measurements: what a dynamic mixture must beat."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax.mixture.checks import require, require_share, require_step_size
from dcft_jax.mixture.priors import prior
from dcft_jax.mixture.rule import MixtureRule
from dcft_jax.mixture.simplex import log_of, mix_floor


def static() -> MixtureRule:
    """The prior, for ever."""
    return MixtureRule(
        init=lambda prior_K: jnp.array(prior_K, jnp.float32),
        update=lambda feedback, state: state,
        weights=lambda state: state,
    )


def proportional(sizes_K: Sequence[float]) -> MixtureRule:
    """`w` in proportion to the number of train rows, for ever; no prior.

    Raises:
      ValueError: for sizes that are not positive; in `init`, for another number of
        them than of abilities.
    """
    return _constant(prior("proportional", sizes_K))


def temperature(sizes_K: Sequence[float], temperature: float = 2.0) -> MixtureRule:
    """`w` in proportion to `size ** (1 / temperature)`, for ever; no prior.

    Temperature-scaled mixing of T5 (Raffel et al. 2020, arXiv:1910.10683), without
    its limit on the sizes.

    Raises:
      ValueError: unless `temperature > 0`; for sizes as in `proportional`.
    """
    return _constant(prior("temperature", sizes_K, temperature))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DmtState:
    second_stage: jax.Array  # int32, 0 or 1


def dmt(
    sizes_K: Sequence[float],
    num_steps: int,
    general: Sequence[int],
    specialist_share: float = 1 / 256,
    switch_at: float = 0.5,
) -> MixtureRule:
    """Dual-stage mixed fine-tuning: specialists first, then general with few of them.

    Dong et al. 2024 (arXiv:2310.05492). First stage: `w` in proportion to the sizes
    over the specialist abilities, 0 for the general ones. Second stage: `w` in
    proportion to the sizes of the general ones and `specialist_share` times the sizes
    of the specialists. No prior.

    The paper trains for a number of epochs in each stage; here the second one begins
    with the first update at or after `switch_at * num_steps`, and never ends. Its k,
    `specialist_share`, scales the amount of data as in the paper, but all rows remain
    in use instead of a subset.

    Args:
      general: indices of the general abilities, some but not all.

    Raises:
      ValueError: for `general` without both kinds, `specialist_share` outside [0, 1],
        `switch_at` outside (0, 1); for sizes as in `proportional`.
    """
    prior("proportional", sizes_K)  # refuses bad sizes
    size_K = np.asarray(sizes_K, np.float64)
    expected = f"distinct indices of some, not all, of {len(size_K)} abilities"
    sound = set(general) < set(range(len(size_K))) and len(set(general)) > 0
    sound = sound and len(set(general)) == len(general)
    require(sound, "general", list(general), expected)
    sound = 0 <= specialist_share <= 1
    require(sound, "specialist_share", specialist_share, "a number in [0, 1]")
    require(0 < switch_at < 1, "switch_at", switch_at, "a number in (0, 1)")

    general_K = np.isin(np.arange(len(size_K)), list(general))
    first_K = np.where(general_K, 0.0, size_K)
    second_K = np.where(general_K, size_K, specialist_share * size_K)
    stages_2K = jnp.asarray(
        np.stack([first_K / first_K.sum(), second_K / second_K.sum()]), jnp.float32
    )
    switch_step = int(np.ceil(switch_at * num_steps))

    def init(prior_K):
        _check_number(stages_2K[0], prior_K)
        return DmtState(jnp.zeros((), jnp.int32))

    def update(feedback, state):
        reached = (feedback.step >= switch_step).astype(jnp.int32)
        return DmtState(jnp.maximum(state.second_stage, reached))

    return MixtureRule(init, update, lambda state: stages_2K[state.second_stage])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RandomWalkState:
    log_weights_K: jax.Array  # float32, normalised, before the floor
    log_prior_K: jax.Array
    num_updates: jax.Array  # int32


def random_walk(
    seed: int, step_size: float = 0.5, anchor: float = 1.0, floor: float = 0.06
) -> MixtureRule:
    """A control: `mirror_descent` with scores that are noise.

    `w <- w^(1 - eta * lambda) * prior^(eta * lambda) * exp(eta * s)`, normalised,
    with eta the step size, lambda the anchor, and s uniform noise, centred and scaled
    so that it spans 1, as the scores of `mirror_descent` do at most. `weights` then
    mixes in the floor. What such a walk gains over the prior is owed to change as
    such. The noise is a function of the seed and the number of updates only.

    Raises:
      ValueError: for a negative step size, `step_size * anchor` outside (0, 1], or
        a floor outside [0, 1).
    """
    require_step_size(step_size)
    pull = step_size * anchor
    require(0 < pull <= 1, "step_size * anchor", pull, "a number in (0, 1]")
    require_share("floor", floor)

    def init(prior_K):
        # Twice: a donated state must not hold one buffer twice.
        log_weights_K, log_prior_K = log_of(prior_K), log_of(prior_K)
        return RandomWalkState(log_weights_K, log_prior_K, jnp.zeros((), jnp.int32))

    def update(feedback, state):
        key = jax.random.fold_in(jax.random.key(seed), state.num_updates)
        noise_K = jax.random.uniform(key, state.log_weights_K.shape)
        spread = jnp.max(noise_K) - jnp.min(noise_K)
        score_K = (noise_K - jnp.mean(noise_K)) / jnp.where(spread > 0, spread, 1.0)
        log_K = (1.0 - pull) * state.log_weights_K + pull * state.log_prior_K
        log_K = jax.nn.log_softmax(log_K + step_size * score_K)
        due = jnp.any(feedback.observed_K)  # an update that measured nothing is none
        return replace(
            state,
            log_weights_K=jnp.where(due, log_K, state.log_weights_K),
            num_updates=state.num_updates + due,
        )

    def weights(state):
        return mix_floor(jax.nn.softmax(state.log_weights_K), floor)

    return MixtureRule(init, update, weights)


def _constant(weights_K: np.ndarray) -> MixtureRule:
    def init(prior_K):
        _check_number(weights_K, prior_K)
        return jnp.array(weights_K)

    return MixtureRule(init, lambda feedback, state: state, lambda state: state)


def _check_number(sizes_K, prior_K) -> None:
    expected = f"one per ability, {len(prior_K)}"
    require(len(sizes_K) == len(prior_K), "sizes", f"{len(sizes_K)} sizes", expected)
