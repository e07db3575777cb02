"""How the gradients of the slots are held until they are resolved into one.

All engines compute the same update (`lagged`: with the previous step's coefficients)
from slots of one ability each; they differ in memory and time.

| engine        | gradients held  | backward passes | needs                           |
|---------------|-----------------|-----------------|---------------------------------|
| `materialize` | one per slot    | 1               |                                 |
| `accumulate`  | one per ability | 1, slot by slot | slots on one mesh slice         |
| `two_pass`    | one parameter's | 2               | a loss that taps its parameters |
| `lagged`      | one parameter's | 1               | the same                        |
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from dcft_jax.conflict.accumulated import ability_rows
from dcft_jax.conflict.diagnostics import Diagnostics
from dcft_jax.conflict.gramian import combine, grouped_gramian
from dcft_jax.conflict.groups import Groups
from dcft_jax.conflict.materialized import slot_gradients
from dcft_jax.conflict.resolution import Resolved, SlotSums, init_groups, resolve_slots
from dcft_jax.conflict.resolver import Resolver
from dcft_jax.conflict.sharded import replicated, spread_slots
from dcft_jax.conflict.slots import slot_coefficients, slot_shares
from dcft_jax.conflict.tapped import tapped_gradient, tapped_gramian

# `(params, frozen, slot) -> (sum over response tokens, their number)`. The number
# depends on the slot only. For engines that tap there is a fourth argument, a pytree
# of handles or None; see `tap`.
LossFn = Callable[..., tuple[jax.Array, jax.Array]]


@dataclass(frozen=True)
class Engine:
    """The static choices of a step; hashable."""

    name: str
    resolver: Resolver
    groups: Groups  # resolved each by itself
    num_abilities: int
    watched: Groups | None = None  # finer, to be logged, where `groups` is global
    stacked: tuple[str, ...] = ("layers",)  # entries of params with a layer axis
    accumulate: int = 1  # micro-batches that the rows of a slot are split into
    rows_dtype: str = "float32"  # of the gradients that "accumulate" holds

    @property
    def measured(self) -> Groups:
        """The groups that have a Gramian."""
        return self.watched or self.groups


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EngineState:
    """What a step keeps for the next: a pytree for the checkpoint."""

    resolver: Any
    # "lagged": the last coefficients as multiples of the weights, so that a mixture
    # that moves and abilities that come and go stay right. None for the others.
    ratio_GK: Any


@dataclass(frozen=True)
class Problem:
    """One step: the losses of S slots, as a function of the parameters."""

    loss_fn: LossFn
    params: Any
    frozen: Any  # what else the loss reads
    slots: Any  # pytree of arrays [S, B, ...]
    ability_S: jax.Array  # int32: which ability each slot holds
    weights_K: jax.Array  # the mixture
    scale: Any = None  # the metric, like params, from adam_metric; None: Euclidean


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Outcome:
    gradient: Any
    loss_S: jax.Array  # float32 sums, nats
    count_S: jax.Array  # float32, response tokens
    nonfinite_S: jax.Array  # bool: left out, as its loss or gradient is not finite
    state: EngineState
    diagnostics: Diagnostics


def init_engine(engine: Engine) -> EngineState:
    num_groups, num_abilities = len(engine.groups.names), engine.num_abilities
    lagged = engine.name == "lagged"
    return EngineState(
        resolver=init_groups(engine.resolver, num_abilities, num_groups),
        ratio_GK=jnp.ones((num_groups, num_abilities), jnp.float32) if lagged else None,
    )


def resolved_gradient(engine: Engine, problem: Problem, state: EngineState) -> Outcome:
    """One gradient from the losses of all slots, conflicts resolved."""
    return ENGINES[engine.name](engine, problem, state)


def measured_gramian(
    engine: Engine, problem: Problem
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Loss sums, token counts and the Gramian `[S, S]` of the slots; no update.

    For slots that are not trained on, such as held-out rows. Every engine but
    "materialize" measures through taps, one parameter at a time.
    """
    loss_fn, params, frozen = problem.loss_fn, problem.params, problem.frozen
    if engine.name == "materialize":
        loss_S, count_S, grads = slot_gradients(loss_fn, params, frozen, problem.slots)
        grads = spread_slots(grads, engine.measured)
        gram_GSS = grouped_gramian(grads, engine.measured, problem.scale)
        loss_S, count_S = replicated(loss_S), replicated(count_S)
    else:
        loss_S, count_S, gram_GSS = tapped_gramian(
            loss_fn,
            params,
            frozen,
            problem.slots,
            engine.measured,
            engine.stacked,
            problem.scale,
        )
    return loss_S, count_S, jnp.sum(gram_GSS, axis=0)


def _materialize(engine: Engine, problem: Problem, state: EngineState) -> Outcome:
    loss_S, count_S, grads = slot_gradients(
        problem.loss_fn,
        problem.params,
        problem.frozen,
        problem.slots,
        engine.accumulate,
    )
    grads = spread_slots(grads, engine.measured)
    gram_GSS = grouped_gramian(grads, engine.measured, problem.scale)
    sums = SlotSums(
        gram_GSS, replicated(loss_S), replicated(count_S), problem.ability_S
    )
    resolved = _resolve(engine, problem, sums, state)
    gradient = combine(grads, resolved.coefficients_GS, engine.groups)
    return _outcome(gradient, sums, resolved)


def _accumulate(engine: Engine, problem: Problem, state: EngineState) -> Outcome:
    loss_S, count_S, sound_S, rows = ability_rows(
        problem.loss_fn,
        problem.params,
        problem.frozen,
        problem.slots,
        problem.ability_S,
        engine.num_abilities,
        engine.accumulate,
        engine.rows_dtype,
    )
    gram_GKK = grouped_gramian(rows, engine.measured, problem.scale)
    loss_K, count_K = (
        jax.ops.segment_sum(
            jnp.where(sound_S, x_S, 0.0), problem.ability_S, engine.num_abilities
        )
        for x_S in (loss_S, count_S)
    )
    # From here on every ability has one slot.
    sums = SlotSums(gram_GKK, loss_K, count_K, jnp.arange(engine.num_abilities))
    resolved = _resolve(engine, problem, sums, state)
    gradient = combine(rows, resolved.coefficients_GS, engine.groups, jnp.float32)
    return replace(
        _outcome(gradient, sums, resolved),
        loss_S=loss_S,
        count_S=count_S,
        nonfinite_S=~sound_S & (count_S > 0),
    )


def _two_pass(engine: Engine, problem: Problem, state: EngineState) -> Outcome:
    """The Gramian in a first backward pass, the weighted sum in a second."""
    loss_S, count_S, gram_GSS = tapped_gramian(
        problem.loss_fn,
        problem.params,
        problem.frozen,
        problem.slots,
        engine.measured,
        engine.stacked,
        problem.scale,
    )
    sums = SlotSums(gram_GSS, loss_S, count_S, problem.ability_S)
    resolved = _resolve(engine, problem, sums, state)
    gradient, *_ = tapped_gradient(
        problem.loss_fn,
        problem.params,
        problem.frozen,
        problem.slots,
        resolved.coefficients_GS,
        engine.groups,
        engine.stacked,
    )
    return _outcome(gradient, sums, resolved)


def _lagged(engine: Engine, problem: Problem, state: EngineState) -> Outcome:
    """The previous coefficients, and the Gramian for the next, in one backward pass."""
    # Which tokens count is in the data, so this costs no forward pass.
    count_S = replicated(
        jax.vmap(lambda slot: problem.loss_fn(problem.params, problem.frozen, slot)[1])(
            problem.slots
        )
    )
    nothing_known_SS = jnp.zeros((len(count_S), len(count_S)), jnp.float32)
    share_KS = slot_shares(
        nothing_known_SS, count_S, problem.ability_S, engine.num_abilities
    )
    applied_GK = state.ratio_GK * problem.weights_K
    gradient, loss_S, gram_GSS = tapped_gradient(
        problem.loss_fn,
        problem.params,
        problem.frozen,
        problem.slots,
        slot_coefficients(applied_GK, share_KS),
        engine.groups,
        engine.stacked,
        problem.scale,
        measured=engine.measured,
    )
    sums = SlotSums(gram_GSS, loss_S, count_S, problem.ability_S)
    resolved = _resolve(engine, problem, sums, state, applied_GK)
    known_K = resolved.present_K & (problem.weights_K > 0)
    ratio_GK = resolved.coefficients_GK / jnp.where(known_K, problem.weights_K, 1.0)
    ratio_GK = jnp.where(known_K, ratio_GK, state.ratio_GK)
    outcome = _outcome(gradient, sums, resolved)
    return replace(outcome, state=EngineState(resolved.state, ratio_GK))


ENGINES = {
    "materialize": _materialize,
    "accumulate": _accumulate,
    "two_pass": _two_pass,
    "lagged": _lagged,
}


def _resolve(
    engine: Engine,
    problem: Problem,
    sums: SlotSums,
    state: EngineState,
    applied_GK: jax.Array | None = None,
) -> Resolved:
    return resolve_slots(
        engine.resolver,
        sums,
        problem.weights_K,
        state.resolver,
        per_group=len(engine.groups.names) > 1,
        applied_GK=applied_GK,
    )


def _outcome(gradient: Any, sums: SlotSums, resolved: Resolved) -> Outcome:
    return Outcome(
        gradient=gradient,
        loss_S=sums.loss_S,
        count_S=sums.count_S,
        nonfinite_S=~resolved.kept_S & (sums.count_S > 0),
        state=EngineState(resolved.state, None),
        diagnostics=resolved.diagnostics,
    )
