"""Anchored mirror descent: the rule of this project."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp

from dcft_jax.mixture.rule import MixtureRule
from dcft_jax.mixture.signals import NEEDS_OF_SIGNALS, SIGNALS
from dcft_jax.mixture.simplex import cap, mix_floor

# A signal beyond this is a broken measurement; it must not become inf in a sum.
MAX_SIGNAL = 1e6

DEFAULT_SIGNALS = {"normalised_gap": 1.0, "paired_progress": 1.0}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MirrorDescentState:
    log_weights_K: jax.Array  # float32, normalised, before floor and caps
    log_prior_K: jax.Array
    average_JK: jax.Array  # float32, moving average of each of the J signals
    count_JK: jax.Array  # int32, how often each was measured
    num_updates: jax.Array  # int32


def mirror_descent(
    step_size: float = 0.5,
    anchor: float = 0.2,
    floor: float = 0.05,
    max_weight_K: Sequence[float] | None = None,
    smoothing: float = 0.5,
    warmup_updates: int = 1,
    signals: Mapping[str, float] = DEFAULT_SIGNALS,
    min_spread: float = 0.5,
) -> MixtureRule:
    """Mirror descent on the simplex, anchored to the prior:
    `w <- w^(1 - eta * lambda) * prior^(eta * lambda) * exp(eta * s)`,
    normalised, with eta the step size and lambda the anchor; `weights` then mixes in
    the floor and projects below the caps, which is not fed back. For constant s the
    fixed point is `prior * exp(s / anchor)`, and s (see `_score`) spans at most 1.

    Args:
      step_size: eta, >= 0.
      anchor: lambda, >= 0; `step_size * anchor <= 1`.
      floor: gamma, in [0, 1); every weight is at least gamma / K.
      max_weight_K: caps, or None.
      smoothing: decay of the averages, in [0, 1); 0: the last measurement only.
      warmup_updates: updates that only measure.
      signals: coefficient of each signal, by its name in `SIGNALS`.
      min_spread: scores that differ by less are not scaled up to differ by 1.

    Raises:
      ValueError: for a value out of range.
    """
    _check_scalars(step_size, anchor, floor, smoothing, warmup_updates, min_spread)
    _check_signals(signals)
    caps_K = _check_caps(max_weight_K, floor)
    names = sorted(signals)  # the order of the state, whatever the mapping's
    coefficients_J = jnp.asarray([signals[name] for name in names], jnp.float32)

    def update(feedback, state):
        state = _measure(feedback, state, names, smoothing)
        score_K = _score(state, coefficients_J, smoothing, min_spread)
        moved_K = _step(state, score_K, step_size, anchor, floor)
        # An update that measured nothing is none.
        due = jnp.any(feedback.observed_K) & (state.num_updates > warmup_updates)
        log_K = jnp.where(due, moved_K, state.log_weights_K)
        return replace(state, log_weights_K=log_K)

    def weights(state):
        weights_K = mix_floor(jax.nn.softmax(state.log_weights_K), floor)
        return weights_K if caps_K is None else cap(weights_K, caps_K)

    needs = frozenset().union(*(NEEDS_OF_SIGNALS.get(name, ()) for name in names))
    return MixtureRule(partial(_init, len(signals), caps_K), update, weights, needs)


def _init(num_signals, caps_K, prior_K) -> MirrorDescentState:
    prior_K = jnp.asarray(prior_K, jnp.float32)
    if caps_K is not None and caps_K.shape != prior_K.shape:
        raise ValueError(
            f"max_weight has {len(caps_K)} entries for {len(prior_K)} abilities."
        )
    log_prior_K = jax.nn.log_softmax(jnp.log(jnp.maximum(prior_K, 1e-12)))
    shape = (num_signals, len(prior_K))
    return MirrorDescentState(
        log_weights_K=log_prior_K,
        # A copy: a donated state must not hold one buffer twice.
        log_prior_K=jnp.array(log_prior_K, copy=True),
        average_JK=jnp.zeros(shape, jnp.float32),
        count_JK=jnp.zeros(shape, jnp.int32),
        num_updates=jnp.zeros((), jnp.int32),
    )


def _measure(feedback, state, names, smoothing) -> MirrorDescentState:
    signal_JK = jnp.stack([SIGNALS[name](feedback) for name in names])
    known_JK = jnp.isfinite(signal_JK) & feedback.observed_K
    signal_JK = jnp.clip(signal_JK, -MAX_SIGNAL, MAX_SIGNAL)
    moved_JK = smoothing * state.average_JK + (1.0 - smoothing) * signal_JK
    return replace(
        state,
        average_JK=jnp.where(known_JK, moved_JK, state.average_JK),
        count_JK=state.count_JK + known_JK,
        num_updates=state.num_updates + jnp.any(feedback.observed_K),
    )


def _score(state, coefficients_J, smoothing, min_spread) -> jax.Array:
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


def _step(state, score_K, step_size, anchor, floor) -> jax.Array:
    pull = step_size * anchor
    log_K = (1.0 - pull) * state.log_weights_K + pull * state.log_prior_K
    log_K = jax.nn.log_softmax(log_K + step_size * score_K)
    # Below the floor a weight is not seen, only slow to come back (with anchor 0 it
    # would sink without end). A prior below the floor stays reachable.
    lowest_K = jnp.minimum(jnp.log(floor / len(log_K)), state.log_prior_K)
    return jnp.maximum(log_K, lowest_K)


def _check_scalars(step_size, anchor, floor, smoothing, warmup_updates, min_spread):
    ranges = {
        "step_size": (step_size, 0 <= step_size < float("inf"), "[0, inf)"),
        "anchor": (anchor, 0 <= anchor < float("inf"), "[0, inf)"),
        "step_size * anchor": (
            step_size * anchor,
            0 <= step_size * anchor <= 1,
            "[0, 1]",
        ),
        "floor": (floor, 0 <= floor < 1, "[0, 1)"),
        "smoothing": (smoothing, 0 <= smoothing < 1, "[0, 1)"),
        "warmup_updates": (warmup_updates, warmup_updates >= 0, "[0, inf)"),
        "min_spread": (min_spread, 0 < min_spread < float("inf"), "(0, inf)"),
    }
    for name, (value, valid, interval) in ranges.items():
        if not valid:
            raise ValueError(f"mixture.{name} is {value}, expected in {interval}.")


def _check_signals(signals: Mapping[str, float]) -> None:
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


def _check_caps(max_weight_K: Sequence[float] | None, floor: float):
    if max_weight_K is None:
        return None
    caps = [float(value) for value in max_weight_K]
    lowest = floor / max(len(caps), 1)
    for k, value in enumerate(caps):
        if not lowest <= value <= 1 or value <= 0:
            raise ValueError(
                f"max_weight of ability {k} is {value}, expected in (0, 1] and at "
                f"least floor / K = {lowest}."
            )
    if sum(caps) < 1:
        raise ValueError(
            f"max_weight is {caps} and sums to {sum(caps)}, expected at least 1: the "
            "weights would have nowhere to go."
        )
    return jnp.asarray(caps, jnp.float32)
