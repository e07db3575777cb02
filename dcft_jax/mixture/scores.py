"""From signals to one score per ability, in units that do not depend on theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from dcft_jax.mixture.feedback import Feedback
from dcft_jax.mixture.signals import SIGNALS

# A signal beyond this is a broken measurement; it must not become inf in a sum.
MAX_SIGNAL = 1e6


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ScoreState:
    average_JK: jax.Array  # float32, moving average of each of the J signals
    count_JK: jax.Array  # int32, how often each was measured


def init_scores(num_signals: int, num_abilities: int) -> ScoreState:
    shape = (num_signals, num_abilities)
    return ScoreState(jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.int32))


def measure(
    feedback: Feedback,
    state: ScoreState,
    names: Sequence[str],
    importance_K: jax.Array,
    smoothing: float,
) -> ScoreState:
    """Averages signals times the importance of their ability.

    What training on k does for the others is weighed by *their* importance: the rows
    of the transfer matrix are.
    """
    weighed = replace(
        feedback, transfer_KK=importance_K[:, None] * feedback.transfer_KK
    )
    signal_JK = jnp.stack(
        [
            SIGNALS[name](weighed)
            if name == "gradient_alignment"
            else importance_K * SIGNALS[name](feedback)
            for name in names
        ]
    )
    known_JK = jnp.isfinite(signal_JK) & feedback.observed_K
    signal_JK = jnp.clip(signal_JK, -MAX_SIGNAL, MAX_SIGNAL)
    moved_JK = smoothing * state.average_JK + (1.0 - smoothing) * signal_JK
    return ScoreState(
        average_JK=jnp.where(known_JK, moved_JK, state.average_JK),
        count_JK=state.count_JK + known_JK,
    )


def score(
    state: ScoreState, coefficients_J: jax.Array, smoothing: float, min_spread: float
) -> jax.Array:
    """s: the averages, centred, weighted, added up and scaled.

    Centred on the unweighted mean of the abilities for which a signal is known; one
    without any counts as average. Divided by the range of the sums, so that no weight
    ratio drifts from the prior's by more than `exp(1 / anchor)`; but by min_spread if
    that is more, so that noise between nearly equal abilities is not blown up.
    """
    known_JK = state.count_JK > 0
    bias_JK = 1.0 - jnp.float32(smoothing) ** state.count_JK
    value_JK = jnp.where(
        known_JK, state.average_JK / jnp.where(known_JK, bias_JK, 1), 0
    )
    num_J = jnp.maximum(jnp.sum(known_JK, axis=1), 1)
    centre_J = jnp.sum(value_JK, axis=1) / num_J
    centred_JK = jnp.where(known_JK, value_JK - centre_J[:, None], 0.0)
    score_K = jnp.sum(coefficients_J[:, None] * centred_JK, axis=0)
    spread = jnp.max(score_K) - jnp.min(score_K)
    return score_K / jnp.maximum(spread, min_spread)


def check_signals(signals: Mapping[str, float]) -> None:
    """Raises ValueError for no signal, an unknown one, or a coefficient not finite."""
    if not signals:
        raise ValueError(
            f"mixture.signals is empty, expected some of {sorted(SIGNALS)}; "
            'for fixed weights use mixture.rule="static".'
        )
    for name, coefficient in signals.items():
        if name not in SIGNALS:
            raise ValueError(
                f"mixture.signals names {name!r}, expected some of {sorted(SIGNALS)}."
            )
        if not abs(coefficient) < float("inf"):
            raise ValueError(
                f"mixture.signals.{name} is {coefficient}, expected a finite number."
            )
