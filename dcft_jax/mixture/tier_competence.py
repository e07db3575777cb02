"""Easy tiers first, harder ones as competence grows."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from dcft_jax.mixture.signals import MIN_RANGE, MIN_RANGE_STDERR
from dcft_jax.mixture.tier_rule import (
    TierRule,
    mix_tier_floor,
    moving_average,
    normalised_sizes,
    require,
)

PACES = ("time", "measured")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CompetenceState:
    size_KT: jax.Array  # float32, rows sum to 1; 0 for no such tier
    mastery_KT: jax.Array  # float32, moving average, free of its start
    count_KT: jax.Array  # int32, how often each was measured
    time: jax.Array  # float32, steps so far over `duration`


def competence(
    duration: float = 1000.0,
    pace: str = "measured",
    initial: float = 0.01,
    power: float = 2.0,
    mastered: float = 0.9,
    smoothing: float = 0.5,
    floor: float = 0.05,
) -> TierRule:
    """Trains on the easiest share `c` of an ability, and lets `c` grow to 1.

    Competence-based curriculum (Platanios et al. 2019, arXiv:1903.09848): train
    examples are ordered by difficulty and drawn evenly from the first `c` of them,

        c = min(1, (x (1 - c0^p) + c0^p)^(1/p)).

    With pace "time", x is `step / duration`, as in the paper (its root schedule; p = 2
    and c0 = 0.01 are its settings). With pace "measured", x is the greater of that and

        sum_t size_t m_1 ... m_t,    m = min(1, (initial - val) / (initial - reference)
                                                / mastered),

    the part of the ability that is mastered, counting a tier as far as all easier ones
    are: a model that learns fast is let on early, one that forgets is sent back, and a
    reference that is never reached holds nothing back beyond `duration`.

    Deviations: a tier that `c` cuts through is drawn from evenly, not only up to `c`;
    `c` moves at updates, not at every step; and every tier gets at least floor / T_k.
    (The authors' released RootStepCompetency has the power p where the paper has 1/p.)

    Args:
      duration: optimizer steps after which every tier is open; inf with pace
        "measured": never before it is mastered.
      pace: "time" or "measured"; the latter is the former for abilities without a
        reference loss.
      initial: c0, in (0, 1].
      power: p, >= 1; 1 is the paper's linear schedule.
      mastered: share of what there is to learn that counts as all, in (0, 1].
      smoothing: decay of the average of m, in [0, 1).
      floor: in [0, 1).

    Raises:
      ValueError: for a value out of range.
    """
    require(duration > 0, "duration", duration, "in (0, inf]")
    require(pace in PACES, "pace", repr(pace), f"one of {PACES}")
    require(
        pace == "measured" or duration < float("inf"),
        "duration",
        duration,
        'in (0, inf) with pace "time"',
    )
    require(0 < initial <= 1, "initial", initial, "in (0, 1]")
    require(1 <= power < float("inf"), "power", power, "in [1, inf)")
    require(0 < mastered <= 1, "mastered", mastered, "in (0, 1]")
    require(0 <= smoothing < 1, "smoothing", smoothing, "in [0, 1)")
    require(0 <= floor < 1, "floor", floor, "in [0, 1)")

    def update(feedback, state):
        state = _measure(feedback, state, mastered, smoothing)
        return replace(state, time=feedback.step.astype(jnp.float32) / duration)

    def shares(state):
        time_K = jnp.broadcast_to(state.time, len(state.size_KT))
        done_K = time_K if pace == "time" else jnp.maximum(_learned(state), time_K)
        competence_K = root_schedule(done_K, initial, power)
        share_KT = _easiest(state.size_KT, competence_K)
        return mix_tier_floor(share_KT, state.size_KT > 0, floor)

    return TierRule(_init, update, shares)


def root_schedule(done: jax.Array, initial: float, power: float) -> jax.Array:
    """`min(1, (done (1 - c0^p) + c0^p)^(1/p))`."""
    start = initial**power
    raised = jnp.clip(done, 0.0, 1.0) * (1.0 - start) + start
    return jnp.minimum(raised ** (1.0 / power), 1.0)


def _init(size_KT) -> CompetenceState:
    size_KT = normalised_sizes(size_KT)
    return CompetenceState(
        size_KT=size_KT,
        mastery_KT=jnp.zeros_like(size_KT),
        count_KT=jnp.zeros(size_KT.shape, jnp.int32),
        time=jnp.zeros((), jnp.float32),
    )


def _measure(feedback, state, mastered, smoothing) -> CompetenceState:
    stderr_KT = jnp.nan_to_num(feedback.val_loss_stderr_KT)  # unknown counts as exact
    range_KT = feedback.initial_loss_KT - feedback.reference_loss_KT
    # What starts at its reference has nothing to learn; see `signals.MIN_RANGE`.
    least_KT = jnp.maximum(MIN_RANGE, MIN_RANGE_STDERR * stderr_KT)
    gap_KT = feedback.val_loss_KT - feedback.reference_loss_KT
    learnt_KT = 1.0 - gap_KT / jnp.maximum(range_KT, least_KT)
    known_KT = feedback.observed_KT & (state.size_KT > 0) & jnp.isfinite(learnt_KT)
    mastery_KT = jnp.clip(learnt_KT / mastered, 0.0, 1.0)
    average_KT, count_KT = moving_average(
        state.mastery_KT, state.count_KT, mastery_KT, known_KT, smoothing
    )
    return replace(state, mastery_KT=average_KT, count_KT=count_KT)


def _learned(state) -> jax.Array:
    mastery_KT = jnp.where(state.size_KT > 0, state.mastery_KT, 1.0)
    return jnp.sum(state.size_KT * jnp.cumprod(mastery_KT, axis=1), axis=1)


def _easiest(size_KT, competence_K) -> jax.Array:
    """Shares of the tiers in the easiest part of each ability."""
    below_KT = jnp.cumsum(size_KT, axis=1) - size_KT
    open_KT = jnp.clip(competence_K[:, None] - below_KT, 0.0, size_KT)
    return open_KT / jnp.sum(open_KT, axis=1, keepdims=True)
