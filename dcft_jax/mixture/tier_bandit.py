"""More of the tiers that a model is learning from right now."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from dcft_jax.mixture.scores import MAX_SIGNAL
from dcft_jax.mixture.tier_rule import (
    TierRule,
    mix_tier_floor,
    moving_average,
    normalised_sizes,
    require,
)

ABSENT = -1e9  # log share of a tier that an ability does not have; finite in any sum


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TierBanditState:
    log_share_KT: jax.Array  # float32, normalised, before the floor
    log_size_KT: jax.Array  # float32, normalised
    average_KT: jax.Array  # float32, of the progress, free of its start
    count_KT: jax.Array  # int32, how often each was measured


def bandit(
    step_size: float = 0.5,
    anchor: float = 0.2,
    smoothing: float = 0.5,
    min_spread: float = 0.01,
    absolute: bool = False,
    floor: float = 0.1,
) -> TierRule:
    """Follows learning progress:
    `q <- q^(1 - eta * lambda) * size^(eta * lambda) * exp(eta * r)`, normalised.

    The bandit over tasks of Graves et al. 2017 ("Automated Curriculum Learning for
    Neural Networks", arXiv:1704.03003) with the decrease of the tier's mix-val loss per
    token as gain. Every evaluation measures all tiers, so this is Exp3.S without
    importance weights, that is exponential weights (Freund and Schapire 1997).

    Deviations: r is the average progress, freed of noise as in `paired_progress`,
    centred within the ability and divided by its range there (by min_spread if that is
    more), where the paper maps quantiles of all past gains to [-1, 1]. In place of the
    mixing of all weights in Exp3.S, shares are drawn to the sizes (`anchor`) and wait
    at the floor, so a tier that starts to progress is back soon. For constant r the
    fixed point is `size * exp(r / anchor)`.

    Args:
      step_size: eta, >= 0.
      anchor: lambda, >= 0; `step_size * anchor <= 1`.
      smoothing: decay of the average of the progress, in [0, 1).
      min_spread: in nats; smaller differences are not scaled up to 1.
      absolute: count a loss that rises as progress too, so that a tier that is being
        forgotten is practised (Matiisen et al. 2017, arXiv:1707.00183). It also draws
        to a tier that overfits: cap its epochs.
      floor: gamma, in [0, 1); the share of a tier is at least gamma / T_k.

    Raises:
      ValueError: for a value out of range.
    """
    require(0 <= step_size < float("inf"), "step_size", step_size, "in [0, inf)")
    require(0 <= anchor < float("inf"), "anchor", anchor, "in [0, inf)")
    pull = step_size * anchor
    require(0 <= pull <= 1, "step_size * anchor", pull, "in [0, 1]")
    require(0 <= smoothing < 1, "smoothing", smoothing, "in [0, 1)")
    require(0 < min_spread < float("inf"), "min_spread", min_spread, "in (0, inf)")
    require(0 <= floor < 1, "floor", floor, "in [0, 1)")

    def update(feedback, state):
        state, due_K = _measure(feedback, state, smoothing, absolute)
        moved_KT = _step(state, _score(state, min_spread), step_size, pull, floor)
        kept_KT = jnp.where(due_K[:, None], moved_KT, state.log_share_KT)
        return replace(state, log_share_KT=kept_KT)

    def shares(state):
        share_KT = jax.nn.softmax(state.log_share_KT, axis=1)
        return mix_tier_floor(share_KT, _exists(state), floor)

    return TierRule(_init, update, shares)


def _exists(state) -> jax.Array:
    return state.log_size_KT > ABSENT


def _init(size_KT) -> TierBanditState:
    size_KT = normalised_sizes(size_KT)
    log_KT = jnp.where(size_KT > 0, jnp.log(jnp.maximum(size_KT, 1e-12)), ABSENT)
    return TierBanditState(
        log_share_KT=log_KT,
        # A copy: a donated state must not hold one buffer twice.
        log_size_KT=jnp.array(log_KT, copy=True),
        average_KT=jnp.zeros_like(size_KT),
        count_KT=jnp.zeros(size_KT.shape, jnp.int32),
    )


def _measure(feedback, state, smoothing, absolute):
    """The state with the new averages, and which abilities had anything measured."""
    value_KT, stderr_KT = feedback.progress_KT, feedback.progress_stderr_KT
    ratio_KT = jnp.nan_to_num(stderr_KT) / jnp.where(value_KT == 0, 1.0, value_KT)
    gain_KT = value_KT * jnp.maximum(1.0 - ratio_KT**2, 0.0)
    known_KT = feedback.observed_KT & _exists(state) & jnp.isfinite(gain_KT)
    gain_KT = jnp.clip(
        jnp.abs(gain_KT) if absolute else gain_KT, -MAX_SIGNAL, MAX_SIGNAL
    )
    average_KT, count_KT = moving_average(
        state.average_KT, state.count_KT, gain_KT, known_KT, smoothing
    )
    state = replace(state, average_KT=average_KT, count_KT=count_KT)
    return state, jnp.any(known_KT, axis=1)


def _score(state, min_spread) -> jax.Array:
    """r; a tier that was never measured counts as average."""
    known_KT = state.count_KT > 0
    num_K = jnp.maximum(jnp.sum(known_KT, axis=1, keepdims=True), 1)
    total_K = jnp.sum(jnp.where(known_KT, state.average_KT, 0.0), axis=1, keepdims=True)
    centred_KT = jnp.where(known_KT, state.average_KT - total_K / num_K, 0.0)
    spread_K = jnp.ptp(centred_KT, axis=1, keepdims=True)
    return centred_KT / jnp.maximum(spread_K, min_spread)


def _step(state, score_KT, step_size, pull, floor) -> jax.Array:
    exists_KT = _exists(state)
    log_KT = (1.0 - pull) * state.log_share_KT + pull * state.log_size_KT
    log_KT = jnp.where(exists_KT, log_KT + step_size * score_KT, ABSENT)
    log_KT = jax.nn.log_softmax(log_KT, axis=1)
    # Below the floor a share is not seen, only slow to come back.
    even_KT = jnp.log(floor / jnp.sum(exists_KT, axis=1, keepdims=True))
    log_KT = jnp.maximum(log_KT, jnp.minimum(even_KT, state.log_size_KT))
    return jnp.where(exists_KT, log_KT, ABSENT)
