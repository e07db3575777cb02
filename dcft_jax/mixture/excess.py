"""Rules that climb the excess of the loss over a reference: group DRO and its kin.

All are exponentiated gradient ascent, `w <- w * exp(eta * score)`, normalised; they
differ in the score and in what keeps weights away from 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from dcft_jax.mixture.checks import require_share, require_step_size
from dcft_jax.mixture.feedback import Feedback
from dcft_jax.mixture.measured import bounded, known, or_average
from dcft_jax.mixture.rule import REFERENCE_LOSS, REFERENCE_MODEL, MixtureRule
from dcft_jax.mixture.simplex import log_of, mix_floor


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ExcessState:
    log_weights_K: jax.Array  # float32, normalised
    score_K: jax.Array  # float32, the last one measured
    measured_K: jax.Array  # int32, whether there was any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DoremiState:
    excess: ExcessState
    mean_weights_K: jax.Array  # float32, over the updates; the prior before them
    num_updates: jax.Array  # int32


def doremi(
    step_size: float = 1.0, smoothing: float = 1e-3, average: bool = False
) -> MixtureRule:
    """Group DRO on the excess loss over a reference model.

    DoReMi (Xie et al. 2023, arXiv:2305.10429, algorithm 1): with lambda_k the mean over
    tokens of `max(0, loss - reference model's)`,

        w <- (1 - c) * softmax(log w + eta * lambda) + c / K

    The result of the paper is the mean of w over the updates, to be used from the
    start of another run: `average`. Without it the weights act where they are found.
    An ability that is not measured keeps its last lambda, as in the authors' code; one
    that never was counts as average. The excess is that of mix-val rows, where the
    paper takes the batch that was trained on.

    Args:
      smoothing: c, in [0, 1).

    Raises:
      ValueError: for a value out of range.
    """
    _check(step_size, smoothing)

    def init(prior_K):
        return DoremiState(
            _init(prior_K),
            jnp.array(prior_K, jnp.float32),
            jnp.zeros((), jnp.int32),
        )

    def update(feedback, state):
        score_K = jnp.maximum(feedback.excess_loss_K, 0.0)
        known_K = known(feedback, score_K)
        excess = _ascend(score_K, known_K, state.excess, step_size, smoothing)
        num_updates = state.num_updates + jnp.any(known_K)
        change_K = jax.nn.softmax(excess.log_weights_K) - state.mean_weights_K
        mean_K = state.mean_weights_K + change_K / jnp.maximum(num_updates, 1)
        mean_K = jnp.where(jnp.any(known_K), mean_K, state.mean_weights_K)
        return DoremiState(excess, mean_K, num_updates)

    def weights(state):
        if average:
            return state.mean_weights_K
        return jax.nn.softmax(state.excess.log_weights_K)

    return MixtureRule(init, update, weights, needs=frozenset({REFERENCE_MODEL}))


def sheared(
    step_size: float = 1.0, smoothing: float = 1e-4, clip: bool = True
) -> MixtureRule:
    """Dynamic batch loading: follows the distance of each loss to its target.

    Sheared LLaMA (Xia et al. 2023, arXiv:2310.06694, algorithm 1):

        w <- (1 - c) * softmax(log w + eta * max(0, val - reference)) + c / K

    The smoothing c is in the authors' code and not in the paper; `max(0, .)` is in the
    paper and not in their code: `clip=False`. The reference is what the run knows of
    it, where the paper predicts it by a scaling law. An ability without a measurement
    keeps its last distance.

    Raises:
      ValueError: for a value out of range.
    """
    _check(step_size, smoothing)

    def distance(feedback):
        gap_K = feedback.val_loss_K - feedback.reference_loss_K
        return jnp.maximum(gap_K, 0.0) if clip else gap_K

    return _rule(distance, step_size, smoothing)


def velocitune(step_size: float = 1.0) -> MixtureRule:
    """Follows how much of the way to the target is left.

    Velocitune (Luo et al. 2024, arXiv:2411.14318): `w <- w * exp(eta * V)`, normalised,
    with eta = 1 in the paper and

        V = clip((val - reference) / (initial - reference), 0, 1)

    V is 0 for an ability that began at its reference or below. An ability without a
    measurement keeps its last V. Nothing brings a weight back that became small, as in
    the paper.

    Raises:
      ValueError: for a step size out of range.
    """
    require_step_size(step_size)

    def velocity(feedback):
        gap_K = feedback.val_loss_K - feedback.reference_loss_K
        range_K = feedback.initial_loss_K - feedback.reference_loss_K
        left_K = jnp.where(range_K > 0, gap_K / range_K, 0.0)
        measured_K = jnp.isfinite(gap_K + range_K)
        return jnp.where(measured_K, jnp.clip(left_K, 0.0, 1.0), jnp.nan)

    return _rule(velocity, step_size, smoothing=0.0)


def auto_mix_align(step_size: float = 1.0, smoothing: float = 0.05) -> MixtureRule:
    """The game between the model and the worst gap to a specialist.

    AutoMixAlign (Corrado et al. 2025, arXiv:2506.00569):

        q <- q * exp(eta * max(0, val - reference)), normalised
        w = (1 - c) * q + c / K

    with the specialists' losses as reference; c is not fed back into q.

    The paper has this for reweighting (AMA-R), and for resampling (AMA-S) with the
    excess e_i replaced by `e_i / w_i` for the one task that is drawn and 0 for the
    others, EXP3's estimate of e from one arm. Here every ability is evaluated, so the
    estimate is not needed, and the two are one rule. The excess is clipped after the
    mean over the rows instead of row by row, and is that of the language modelling
    loss instead of DPO's. The defaults are this project's.

    Args:
      smoothing: c, in [0, 1).

    Raises:
      ValueError: for a value out of range.
    """
    _check(step_size, smoothing)

    def excess(feedback):
        return jnp.maximum(feedback.val_loss_K - feedback.reference_loss_K, 0.0)

    rule = _rule(excess, step_size, smoothing=0.0)
    return rule._replace(
        weights=lambda state: mix_floor(jax.nn.softmax(state.log_weights_K), smoothing)
    )


def _check(step_size: float, smoothing: float) -> None:
    require_step_size(step_size)
    require_share("smoothing", smoothing)


def _rule(
    score: Callable[[Feedback], jax.Array], step_size: float, smoothing: float
) -> MixtureRule:
    def update(feedback, state):
        score_K = score(feedback)
        known_K = known(feedback, score_K)
        return _ascend(score_K, known_K, state, step_size, smoothing)

    return MixtureRule(
        init=_init,
        update=update,
        weights=lambda state: jax.nn.softmax(state.log_weights_K),
        needs=frozenset({REFERENCE_LOSS}),
    )


def _init(prior_K) -> ExcessState:
    return ExcessState(
        log_weights_K=log_of(prior_K),
        score_K=jnp.zeros(len(prior_K), jnp.float32),
        measured_K=jnp.zeros(len(prior_K), jnp.int32),
    )


def _ascend(score_K, known_K, state, step_size, smoothing) -> ExcessState:
    score_K = jnp.where(known_K, bounded(score_K), state.score_K)
    measured_K = state.measured_K | known_K
    used_K = or_average(measured_K > 0, score_K)
    # The shift changes nothing but the size of the numbers.
    used_K = step_size * (used_K - jnp.max(used_K))
    log_K = jax.nn.log_softmax(state.log_weights_K + used_K)
    if smoothing > 0:
        log_share = jnp.log(smoothing / len(log_K))
        log_K = jnp.logaddexp(jnp.log1p(-smoothing) + log_K, log_share)
    due = jnp.any(known_K)  # an update that measured nothing is none
    return replace(
        state,
        log_weights_K=jnp.where(due, log_K, state.log_weights_K),
        score_K=score_K,
        measured_K=measured_K,
    )
