"""One optimizer step: per-ability gradients, conflicts resolved, one update.

    params, batch -> per-slot loss and gradient -> Gramian -> resolver
                  -> one combined gradient -> optax -> params

Pure: everything it reads is an argument and everything it changes is returned.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dcft_jax.conflict import Diagnostics, Engine, Problem, resolved_gradient, tap
from dcft_jax.mixture import MixtureRule, objective_weights
from dcft_jax.models import ModelConfig, Tap, score_responses
from dcft_jax.sharding import match_sharding
from dcft_jax.training.state import MixtureState, TrainState, add_wide

Batch = dict[str, jax.Array]
ROW_FIELDS = ("tokens", "loss_mask", "segments", "positions")
LossFn = Callable[..., tuple[jax.Array, jax.Array]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepMetrics:
    loss_sum_K: jax.Array  # float32 nats, over the response tokens of the step
    count_K: jax.Array  # float32 response tokens; 0: the ability was absent
    grad_norm: jax.Array  # of the resolved gradient, before clipping
    conflict: Diagnostics


def slot_loss(
    config: ModelConfig, params: Any, frozen: Any, slot: Batch, handles: Any = None
) -> tuple[jax.Array, jax.Array]:
    """Summed response-token loss of one slot, in nats, and how many tokens.

    A sum and a count, never a mean: means of means weigh tokens unequally.
    `handles`: of the taps on the parameters, see `dcft_jax.conflict.tap`.
    """
    del frozen  # the decoder trains all of its parameters
    hook = None if handles is None else Tap(tap, handles)
    nll_BL, _, mask_BL = score_responses(config, params, slot, hook)
    return jnp.sum(nll_BL), jnp.sum(mask_BL, dtype=jnp.float32)


def _count_step(
    mixture: MixtureState, batch: Batch, loss_K: jax.Array, count_K: jax.Array
) -> MixtureState:
    num_abilities = count_K.shape[0]
    slots_K = jnp.bincount(batch["ability_S"], length=num_abilities)
    rows_per_slot = batch["tokens_SBL"].shape[1]
    return dataclasses.replace(
        mixture,
        credit_K=batch["credit_K"],
        rows_K=mixture.rows_K + slots_K.astype(jnp.int32) * rows_per_slot,
        tokens_K2=add_wide(mixture.tokens_K2, count_K),
        train_loss_sum_K=mixture.train_loss_sum_K + loss_K,
        train_count_K=mixture.train_count_K + count_K,
    )


def train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    rule: MixtureRule,
    engine: Engine,
    metric: Callable[[optax.OptState], Any],
    state: TrainState,
    frozen: Any,
    batch: Batch,
) -> tuple[TrainState, StepMetrics]:
    """Takes one step.

    Args:
      metric: of the gradients' inner products, from the optimizer's state; returns
        None for the Euclidean.
      batch: int32 `tokens_SBL`, `segments_SBL`, `positions_SBL`, bool
        `loss_mask_SBL`; int32 `ability_S`; float32 `credit_K`, what the allocation
        that chose the slots carries over.

    Returns:
      The new state, and what to log.
    """
    mixture, ability_S = state.mixture, batch["ability_S"]
    problem = Problem(
        loss_fn=loss_fn,
        params=state.params,
        frozen=frozen,
        slots={name: batch[f"{name}_SBL"] for name in ROW_FIELDS},
        ability_S=ability_S,
        weights_K=objective_weights(rule.weights(mixture.rule), ability_S.shape[0]),
        scale=metric(state.opt_state),
    )
    outcome = resolved_gradient(engine, problem, state.conflict)
    gradient = match_sharding(outcome.gradient, state.params)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    loss_K, count_K = (
        jax.ops.segment_sum(x_S, ability_S, engine.num_abilities)
        for x_S in (outcome.loss_S, outcome.count_S)
    )
    new_state = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        mixture=_count_step(mixture, batch, loss_K, count_K),
        conflict=outcome.state,
    )
    metrics = StepMetrics(
        loss_sum_K=loss_K,
        count_K=count_K,
        grad_norm=optax.tree.norm(gradient),
        conflict=outcome.diagnostics,
    )
    return new_state, metrics


def make_train_step(
    model: ModelConfig,
    optimizer: optax.GradientTransformation,
    rule: MixtureRule,
    engine: Engine,
    metric: Callable[[optax.OptState], Any] = lambda opt_state: None,
) -> Callable[[TrainState, Any, Batch], tuple[TrainState, StepMetrics]]:
    """`(state, frozen, batch) -> (state, metrics)`, to be jitted by the caller."""
    loss_fn = partial(slot_loss, model)
    return partial(train_step, loss_fn, optimizer, rule, engine, metric)
