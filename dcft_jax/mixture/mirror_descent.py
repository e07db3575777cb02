"""Anchored mirror descent: the rule of this project."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from dcft_jax.mixture.checks import require, require_between, require_count
from dcft_jax.mixture.guard import GuardState, compare, init_guard
from dcft_jax.mixture.objectives import (
    OBJECTIVES,
    ObjectiveState,
    constrained_score,
    enforce,
    focus,
    init_objective,
)
from dcft_jax.mixture.overfitting import (
    MODES,
    OverfitState,
    held_back,
    init_overfit,
    watch,
)
from dcft_jax.mixture.rule import MixtureRule
from dcft_jax.mixture.scores import (
    ScoreState,
    check_signals,
    init_scores,
    measure,
    score,
)
from dcft_jax.mixture.signals import NEEDS_OF_SIGNALS
from dcft_jax.mixture.simplex import cap, log_of, mix_floor

DEFAULT_SIGNALS = {"normalised_gap": 1.0, "paired_progress": 1.0}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MirrorDescentState:
    log_weights_K: jax.Array  # float32, normalised, before floor, guard and caps
    log_prior_K: jax.Array
    scores: ScoreState
    objective: ObjectiveState
    overfit: OverfitState
    guard: GuardState
    num_updates: jax.Array  # int32


def mirror_descent(
    step_size: float = 0.5,
    anchor: float = 1.0,
    floor: float = 0.06,
    max_weight_K: Sequence[float] | None = None,
    smoothing: float = 0.5,
    warmup_updates: int = 1,
    signals: Mapping[str, float] = DEFAULT_SIGNALS,
    min_spread: float = 0.5,
    objective: str = "mean",
    retain_margin_K: Sequence[float | None] | None = None,
    overfitting: str = "floor",
    guard: float = 0.0,
) -> MixtureRule:
    """Mirror descent on the simplex, anchored to the prior:
    `w <- w^(1 - eta * lambda) * prior^(eta * lambda) * exp(eta * s)`,
    normalised, with eta the step size and lambda the anchor; `weights` then mixes in
    the floor, holds overfitted abilities back and projects below the caps, which is
    not fed back. For constant s the fixed point is `prior * exp(s / anchor)`, and s
    (see `score`) spans at most 1.

    Objectives: "mean", s as the signals say; "worst", signals times K z, where z
    follows the abilities with the largest gap (see `focus`); "constrained", an ability
    with a margin counts as much as it violates its bound (see `enforce`), the others
    are targets.

    Args:
      step_size: eta, >= 0.
      anchor: lambda, >= 0; `step_size * anchor <= 1`.
      floor: gamma, in [0, 1); every weight is at least gamma / K.
      max_weight_K: caps, or None.
      smoothing: decay of the averages, in [0, 1); 0: the last measurement only.
      warmup_updates: updates that only measure.
      signals: coefficient of each signal, by its name in `SIGNALS`.
      min_spread: scores that differ by less are not scaled up to differ by 1.
      objective: "mean", "worst" or "constrained".
      retain_margin_K: nats above the bound that are allowed, >= 0; None for targets.
      overfitting: an ability that learns its train rows by heart (see `watch`) sinks
        towards the "floor", or gets weight 0 ("exclude"), or is left alone ("ignore").
      guard: standard errors by which the run may be worse than the prior alone before
        the weights go back to it (see `compare`); 0: no guard. Without
        `static_loss_K` it needs at least 8 warm-up updates to fit its curve to.

    Raises:
      ValueError: for a value out of range.
    """
    _check(step_size, anchor, floor, smoothing, min_spread, guard)
    require_count("warmup_updates", warmup_updates, 0)
    require(objective in OBJECTIVES, "objective", objective, f"one of {OBJECTIVES}")
    require(overfitting in MODES, "overfitting", overfitting, f"one of {MODES}")
    check_signals(signals)
    caps_K = _check_caps(max_weight_K, floor)
    margin_K = _check_margins(retain_margin_K, objective)
    names = sorted(signals)  # the order of the state, whatever the mapping's
    coefficients_J = jnp.asarray([signals[name] for name in names], jnp.float32)

    def init(prior_K):
        _check_length("max_weight", caps_K, prior_K)
        _check_length("retain_margin", margin_K, prior_K)
        return _init(jnp.asarray(prior_K, jnp.float32), len(signals), warmup_updates)

    def update(feedback, state):
        observed = jnp.any(feedback.observed_K)
        goal = state.objective
        if objective == "worst":
            goal = focus(feedback, goal, step_size, anchor)
        if margin_K is not None:
            goal = enforce(feedback, goal, margin_K)
        importance_K = len(goal.log_importance_K) * jnp.exp(goal.log_importance_K)
        scores = measure(feedback, state.scores, names, importance_K, smoothing)
        score_K = score(scores, coefficients_J, smoothing, min_spread)
        if margin_K is not None:
            score_K = constrained_score(score_K, goal, margin_K)
        # An update that measured nothing is none.
        due = observed & (state.num_updates >= warmup_updates)
        moved_K = _step(state, score_K, step_size, anchor, floor)
        protection = state.guard
        if guard:
            at_prior = state.num_updates <= warmup_updates
            protection = compare(feedback, state.guard, at_prior, guard)
        return MirrorDescentState(
            log_weights_K=jnp.where(due, moved_K, state.log_weights_K),
            log_prior_K=state.log_prior_K,
            scores=scores,
            objective=goal,
            overfit=watch(feedback, state.overfit),
            guard=protection,
            num_updates=state.num_updates + observed,
        )

    needs = frozenset().union(*(NEEDS_OF_SIGNALS.get(name, ()) for name in names))
    weights = partial(_weights, floor, overfitting, caps_K)
    return MixtureRule(init, update, weights, needs)


def _init(prior_K, num_signals, warmup_updates) -> MirrorDescentState:
    log_prior_K = log_of(prior_K)
    num_abilities = len(prior_K)
    return MirrorDescentState(
        log_weights_K=log_prior_K,
        # A copy: a donated state must not hold one buffer twice.
        log_prior_K=jnp.array(log_prior_K, copy=True),
        scores=init_scores(num_signals, num_abilities),
        objective=init_objective(num_abilities),
        overfit=init_overfit(num_abilities),
        guard=init_guard(num_abilities, capacity=max(4, min(64, 2 * warmup_updates))),
        num_updates=jnp.zeros((), jnp.int32),
    )


def _step(state, score_K, step_size, anchor, floor) -> jax.Array:
    pull = step_size * anchor
    log_K = (1.0 - pull) * state.log_weights_K + pull * state.log_prior_K
    log_K = jax.nn.log_softmax(log_K + step_size * score_K)
    # Below the floor a weight is not seen, only slow to come back (with anchor 0 it
    # would sink without end). A prior below the floor stays reachable.
    lowest_K = jnp.minimum(jnp.log(floor / len(log_K)), state.log_prior_K)
    return jnp.maximum(log_K, lowest_K)


def _weights(floor, overfitting, caps_K, state: MirrorDescentState) -> jax.Array:
    level = state.guard.level
    log_K = (1.0 - level) * state.log_weights_K + level * state.log_prior_K
    weights_K = mix_floor(jax.nn.softmax(log_K), floor)
    if overfitting == "floor":
        weights_K = held_back(weights_K, state.overfit.kept_K, floor / len(weights_K))
    if overfitting == "exclude":
        kept_K = jnp.where(state.overfit.flagged_K, 0.0, 1.0)
        weights_K = held_back(weights_K, kept_K, 0.0)
    return weights_K if caps_K is None else cap(weights_K, caps_K)


def _check_length(name: str, value_K, prior_K) -> None:
    if value_K is not None and len(value_K) != len(prior_K):
        raise ValueError(
            f"{name} has {len(value_K)} entries for {len(prior_K)} abilities."
        )


def _check(step_size, anchor, floor, smoothing, min_spread, guard) -> None:
    require_between("step_size", step_size, 0, float("inf"))
    require_between("anchor", anchor, 0, float("inf"))
    pull = step_size * anchor
    require(0 <= pull <= 1, "step_size * anchor", pull, "in [0, 1]")
    require_between("floor", floor, 0, 1)
    require_between("smoothing", smoothing, 0, 1)
    require(0 < min_spread < float("inf"), "min_spread", min_spread, "in (0, inf)")
    require_between("guard", guard, 0, float("inf"))


def _check_margins(retain_margin_K, objective):
    given = [] if retain_margin_K is None else list(retain_margin_K)
    bounded = [value for value in given if value is not None]
    for value in bounded:
        require(0 <= value < float("inf"), "retain_margin", value, "in [0, inf)")
    if objective != "constrained":
        require(
            not bounded,
            "objective",
            objective,
            '"constrained" where an ability has a retain_margin',
        )
        return None
    require(
        0 < len(bounded) < len(given),
        "objective",
        objective,
        "abilities with and abilities without a retain_margin: both are needed",
    )
    nan = float("nan")
    return jnp.asarray([nan if value is None else value for value in given])


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
