"""What a mixture is for: all abilities, the worst one, or some without loss of others.

An objective gives every ability an importance, which multiplies its signals; mirror
descent on the weights then climbs the product. Importances are states of mirror
descent themselves.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dcft_jax.mixture.feedback import Feedback
from dcft_jax.mixture.signals import learnable_range, normalised_gap

OBJECTIVES = ("mean", "worst", "constrained")
# Multipliers of constraints: 0.5 pulls at a weight like an average target ability.
DUAL_START, DUAL_LEAST, DUAL_MOST = 0.5, 0.02, 2.0
DUAL_STEP = 4.0
# Gaps are compared with the largest one, or with this if that is less.
MIN_GAP = 0.1


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ObjectiveState:
    log_importance_K: jax.Array  # float32, on the simplex
    log_dual_K: jax.Array  # float32, of the constraints


def init_objective(num_abilities: int) -> ObjectiveState:
    return ObjectiveState(
        log_importance_K=jnp.full(num_abilities, -jnp.log(num_abilities), jnp.float32),
        log_dual_K=jnp.full(num_abilities, jnp.log(DUAL_START), jnp.float32),
    )


def focus(
    feedback: Feedback, state: ObjectiveState, step_size: float, anchor: float
) -> ObjectiveState:
    """The adversary of the min-max problem `min_w max_z sum_k z_k gap_k`.

    `z <- z^(1 - eta lambda) exp(eta gap / max gap)`: Group DRO (Sagawa et al. 2020,
    arXiv:1911.08731) on normalised gaps, anchored to the uniform distribution as the
    weights are to the prior. Gaps are taken as shares of the largest (of 0.1, if that
    is more): all shrink in training, and against the anchor z would become uniform
    when the worst one matters most. An unknown gap counts as the mean of the others.
    """
    gap_K = normalised_gap(feedback)
    known_K = jnp.isfinite(gap_K)
    mean = jnp.sum(jnp.where(known_K, gap_K, 0.0)) / jnp.maximum(jnp.sum(known_K), 1)
    gap_K = jnp.clip(jnp.where(known_K, gap_K, mean), 0.0, 10.0)
    gap_K = gap_K / jnp.maximum(jnp.max(gap_K), MIN_GAP)
    log_K = (1.0 - step_size * anchor) * state.log_importance_K + step_size * gap_K
    log_K = jnp.maximum(jax.nn.log_softmax(log_K), -20.0)
    return ObjectiveState(log_K, state.log_dual_K)


def enforce(
    feedback: Feedback, state: ObjectiveState, margin_K: jax.Array
) -> ObjectiveState:
    """Dual ascent on `loss_k <= bound_k`, where `margin_K` is not nan.

    The bound is the reference, or where there is none the initial loss, plus the
    margin in nats. `mu <- mu exp(4 v)` with v the violation as a share of what there
    was to learn, within [-1, 1], and mu kept in [0.02, 2].
    """
    bound_K = jnp.where(
        jnp.isfinite(feedback.reference_loss_K),
        feedback.reference_loss_K,
        feedback.initial_loss_K,
    )
    excess_K = feedback.val_loss_K - bound_K - margin_K
    violation_K = jnp.clip(excess_K / learnable_range(feedback), -1.0, 1.0)
    known_K = feedback.observed_K & jnp.isfinite(violation_K)
    log_K = state.log_dual_K + DUAL_STEP * jnp.where(known_K, violation_K, 0.0)
    log_K = jnp.clip(log_K, jnp.log(DUAL_LEAST), jnp.log(DUAL_MOST))
    return ObjectiveState(state.log_importance_K, log_K)


def constrained_score(
    score_K: jax.Array, state: ObjectiveState, margin_K: jax.Array
) -> jax.Array:
    """The scores of the targets, and in the same units the pull of the constraints."""
    return jnp.where(jnp.isnan(margin_K), score_K, jnp.exp(state.log_dual_K) - 0.5)
