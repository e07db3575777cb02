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
from dcft_jax.mixture import ability_sums, objective_weights
from dcft_jax.models import ModelConfig, Tap, combine, score_responses
from dcft_jax.sharding import match_sharding
from dcft_jax.training.composition import Composition
from dcft_jax.training.state import MixtureState, TrainState, TrainSums, add_wide

Batch = dict[str, jax.Array]
ROW_FIELDS = ("tokens", "loss_mask", "segments", "positions")
LossFn = Callable[..., tuple[jax.Array, jax.Array]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepMetrics:
    loss_sum_K: jax.Array  # float32 nats, over the response tokens of the step
    count_K: jax.Array  # float32 response tokens; 0: the ability was absent
    bad_K: jax.Array  # bool: slots of it were left out, as they were not finite
    nonfinite_K: jax.Array  # int32: in so many steps until now
    nonfinite_row_K: jax.Array  # int32: in so many of its steps in a row
    grad_norm: jax.Array  # of the resolved gradient, before clipping
    conflict: Diagnostics


def slot_loss(
    config: ModelConfig,
    params: Any,
    frozen: Any,
    slot: Batch,
    handles: Any = None,
    max_predicted: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Summed response-token loss of one slot, in nats, and how many tokens.

    A sum and a count, never a mean: means of means weigh tokens unequally.
    `params` are trained, `frozen` is the rest of the decoder's. `handles`: of the taps
    on the trained, see `dcft_jax.conflict.tap`. `max_predicted`: see `score_responses`.
    """
    params = combine(frozen, params)
    hook = None if handles is None else Tap(tap, handles)
    nll_BL, _, mask_BL = score_responses(config, params, slot, hook, max_predicted)
    return jnp.sum(nll_BL), jnp.sum(mask_BL, dtype=jnp.float32)


def _count_step(
    mixture: MixtureState,
    batch: Batch,
    loss_K: jax.Array,
    count_K: jax.Array,
    bad_K: jax.Array,
    conflict: Diagnostics,
) -> MixtureState:
    in_a_row_K = jnp.where(count_K > 0, 0, mixture.nonfinite_row_K)
    return dataclasses.replace(
        mixture,
        credit_C=batch["credit_C"],
        rows_C=batch["rows_C"],
        tokens_K2=add_wide(mixture.tokens_K2, count_K),
        nonfinite_K=mixture.nonfinite_K + bad_K,
        nonfinite_row_K=jnp.where(bad_K, mixture.nonfinite_row_K + 1, in_a_row_K),
        train=_add_step(mixture.train, loss_K, count_K, conflict),
    )


def _add_step(
    sums: TrainSums, loss_K: jax.Array, count_K: jax.Array, conflict: Diagnostics
) -> TrainSums:
    seen_KK = jnp.isfinite(conflict.gram_KK)
    noisy_K = jnp.isfinite(conflict.signal_K) & jnp.isfinite(conflict.noise_K)
    # The gradient of a step is a mean over its tokens.
    noise_K = conflict.noise_K / jnp.maximum(count_K, 1.0)
    return TrainSums(
        loss_K=sums.loss_K + loss_K,
        count_K=sums.count_K + count_K,
        gram_KK=sums.gram_KK + jnp.where(seen_KK, conflict.gram_KK, 0.0),
        gram_count_KK=sums.gram_count_KK + seen_KK,
        signal_K=sums.signal_K + jnp.where(noisy_K, conflict.signal_K, 0.0),
        noise_K=sums.noise_K + jnp.where(noisy_K, noise_K, 0.0),
        noise_count_K=sums.noise_count_K + noisy_K,
    )


def objective(
    composition: Composition, mixture: MixtureState, ability_S: jax.Array
) -> jax.Array:
    """Weights of the abilities' gradients in this step, float32 [K]."""
    ability_C, _ = composition.parts
    shares_K = ability_sums(mixture.shares_C, ability_C, len(composition.prior_K))
    return objective_weights(
        composition.actuator, mixture.weights_K, shares_K, ability_S
    )


def train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    composition: Composition,
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
        `loss_mask_SBL`; int32 `ability_S`; float32 `credit_C`, what the allocation
        that chose the slots carries over; int32 `rows_C`, the positions of the streams
        after it.

    A slot whose loss or gradient is not finite is left out: of the update, the loss and
    the tokens. The engine "lagged" learns of it parameter by parameter, and its ability
    has a shorter gradient in that step.

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
        weights_K=objective(composition, mixture, ability_S),
        scale=metric(state.opt_state),
    )
    outcome = resolved_gradient(engine, problem, state.conflict)
    gradient = match_sharding(outcome.gradient, state.params)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    bad_S = outcome.nonfinite_S
    loss_K, count_K, bad_slots_K = (
        jax.ops.segment_sum(x_S, ability_S, engine.num_abilities)
        for x_S in (
            jnp.where(bad_S, 0.0, outcome.loss_S),
            jnp.where(bad_S, 0.0, outcome.count_S),
            bad_S.astype(jnp.int32),
        )
    )
    counted = _count_step(
        mixture, batch, loss_K, count_K, bad_slots_K > 0, outcome.diagnostics
    )
    new_state = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        mixture=counted,
        conflict=outcome.state,
    )
    metrics = StepMetrics(
        loss_sum_K=loss_K,
        count_K=count_K,
        bad_K=bad_slots_K > 0,
        nonfinite_K=counted.nonfinite_K,
        nonfinite_row_K=counted.nonfinite_row_K,
        grad_norm=optax.tree.norm(gradient),
        conflict=outcome.diagnostics,
    )
    return new_state, metrics


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    composition: Composition,
    engine: Engine,
    metric: Callable[[optax.OptState], Any] = lambda opt_state: None,
) -> Callable[[TrainState, Any, Batch], tuple[TrainState, StepMetrics]]:
    """`(state, frozen, batch) -> (state, metrics)`, to be jitted by the caller."""
    return partial(train_step, loss_fn, optimizer, composition, engine, metric)
