"""GRAPE: towards what helps the abilities that improve least."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dcft_jax.mixture.checks import require_between
from dcft_jax.mixture.exponentiated_gradient import exponentiated_gradient
from dcft_jax.mixture.rule import TRANSFER, MixtureRule
from dcft_jax.mixture.simplex import log_of, mix_floor


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GrapeState:
    log_weights_K: jax.Array  # float32, normalised: the mixture
    log_tasks_K: jax.Array  # float32, normalised: how much each ability matters


def grape(
    task_step: float = 5.0, mixture_step: float = 1.5, task_floor: float = 0.001
) -> MixtureRule:
    """Group robust multi-target adaptive training: a minimax of two weights.

    With `r_jk = <grad log L_j, g_k>`, the rate at which training on k lowers the
    mix-val loss of j relative to itself,

        z_j <- z_j exp(-task_step sum_k w_k r_jk), normalised, mixed with the floor
        w_k <- w_k exp(mixture_step sum_j z_j r_jk), normalised

    so that the abilities which the mixture improves least count most. Fan, Glarou and
    Jaggi 2025 (arXiv:2505.20380), whose steps are the learning rate over mu; order,
    defaults, the floor of 0.001 and steps without the learning rate are those of the
    authors' code for ClimbLab. Both weights move at every update, from the same
    gradients. z starts uniform.

    Sums go over what is measured; over a part of k with its weights scaled to sum 1.

    Args:
      task_step: >= 0; 0 keeps z uniform.
      mixture_step: >= 0.
      task_floor: in [0, 1).

    Raises:
      ValueError: for a value out of range.
    """
    require_between("task_step", task_step, 0, float("inf"))
    require_between("mixture_step", mixture_step, 0, float("inf"))
    require_between("task_floor", task_floor, 0, 1)

    def init(prior_K):
        even_K = jnp.full(len(prior_K), 1 / len(prior_K), jnp.float32)
        return GrapeState(log_of(prior_K), log_of(even_K))

    def update(feedback, state):
        rate_KK = feedback.transfer_KK / feedback.val_loss_K[:, None]
        observed_K = feedback.observed_K
        rate_KK = jnp.where(observed_K & observed_K[:, None], rate_KK, jnp.nan)
        improvement_K = _mean(rate_KK, jax.nn.softmax(state.log_weights_K))
        tasks_K = exponentiated_gradient(state.log_tasks_K, -task_step * improvement_K)
        tasks_K = log_of(mix_floor(jnp.exp(tasks_K), task_floor))
        help_K = _mean(rate_KK.T, jnp.exp(tasks_K))
        log_K = exponentiated_gradient(state.log_weights_K, mixture_step * help_K)
        measured = jnp.any(jnp.isfinite(improvement_K))
        return GrapeState(
            jnp.where(measured, log_K, state.log_weights_K),
            jnp.where(measured, tasks_K, state.log_tasks_K),
        )

    def weights(state):
        return jax.nn.softmax(state.log_weights_K)

    return MixtureRule(init, update, weights, frozenset({TRANSFER}))


def _mean(rate_KK, weights_K):
    """Of each row, weighted, over what is finite; nan for a row without."""
    known_KK = jnp.isfinite(rate_KK)
    total_K = jnp.sum(jnp.where(known_KK, rate_KK, 0.0) * weights_K, axis=1)
    weight_K = jnp.sum(known_KK * weights_K, axis=1)
    return jnp.where(weight_K > 0, total_K / weight_K, jnp.nan)
