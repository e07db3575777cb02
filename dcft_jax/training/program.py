"""The computation of a run: pure functions that the config alone decides."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from dcft_jax.conflict import (
    RESOLVERS,
    Engine,
    Resolver,
    adam_metric,
    ema_weights,
    every_n,
    make_groups,
    margin,
    match_mean_norm,
    noise_gate,
)
from dcft_jax.evaluation.losses import make_eval_step
from dcft_jax.mixture import prior
from dcft_jax.mixture.from_config import make_rule, make_tier_rule
from dcft_jax.models import STACKED, ModelConfig, split
from dcft_jax.models import init as init_params
from dcft_jax.training.composition import Composition
from dcft_jax.training.mixture_update import update_mixture
from dcft_jax.training.optimizer import make_optimizer, make_schedule
from dcft_jax.training.state import TrainState, init_mixture, init_state
from dcft_jax.training.step import LossFn, make_train_step, slot_loss


@dataclasses.dataclass(frozen=True)
class Program:
    model: ModelConfig
    loss_fn: LossFn
    composition: Composition
    optimizer: optax.GradientTransformation
    engine: Engine
    schedule: optax.Schedule
    init: Callable[..., TrainState]  # of random trained parameters, or of given ones
    train_step: Callable  # jitted (state, frozen, batch) -> (state, metrics)
    eval_step: Callable  # jitted (all parameters, batch) -> sums
    update_mixture: Callable  # jitted (mixture, measured, extra, step) -> mixture


def build_program(
    config: ConfigDict,
    model: ModelConfig,
    size_KT: np.ndarray,
    tier_KN: np.ndarray,
    max_predicted: int | None = None,
) -> Program:
    """Builds the functions; nothing is computed.

    Args:
      model: the decoder; see `make_model`.
      size_KT: train rows of each difficulty tier of each ability; 0: no such tier.
      tier_KN: which tier each mix-val example is in; -1: no example.
      max_predicted: response tokens that a row of the data has at most.

    Raises:
      ValueError: a field of the mixture is out of range.
    """
    num_steps = config.run.num_steps
    optimizer = make_optimizer(config.optimizer, num_steps)
    composition = make_composition(config, size_KT, tier_KN)

    def trained() -> Any:
        return split(init_params(model, jax.random.key(config.run.seed)))[0]

    engine = make_engine(config, jax.eval_shape(trained))
    loss_fn = partial(slot_loss, model, max_predicted=max_predicted)
    step = make_train_step(loss_fn, optimizer, composition, engine, make_metric(config))

    def init(params: Any = None) -> TrainState:
        params = trained() if params is None else params
        mixture = init_mixture(composition, tier_KN.shape[1])
        return init_state(params, optimizer, engine, mixture)

    return Program(
        model=model,
        loss_fn=loss_fn,
        composition=composition,
        optimizer=optimizer,
        engine=engine,
        schedule=make_schedule(config.optimizer, num_steps),
        init=init,
        train_step=jax.jit(step, donate_argnums=0),
        eval_step=make_eval_step(model, max_predicted),
        update_mixture=jax.jit(partial(update_mixture, composition)),
    )


def make_composition(
    config: ConfigDict, size_KT: np.ndarray, tier_KN: np.ndarray
) -> Composition:
    """All that the mixture is made of.

    Args:
      size_KT: train rows of each tier.
      tier_KN: which tier each mix-val example is in; -1: no example.
    """
    abilities = config.abilities.values()
    sizes_K = size_KT.sum(axis=1)
    references = [ability.reference_loss for ability in abilities]
    return Composition(
        rule=make_rule(config, sizes_K.tolist()),
        tier_rule=make_tier_rule(config),
        actuator=config.mixture.actuator,
        prior_K=prior_weights(config, sizes_K.tolist()),
        size_KT=size_KT,
        max_epochs_K=np.array([ability.max_epochs for ability in abilities]),
        tier_KN=tier_KN,
        given_reference_K=np.array(references, np.float32),
        references=config.mixture.references,
        num_steps=config.run.num_steps,
        num_slots=config.data.num_slots,
        rows_per_slot=config.data.rows_per_slot,
        eval_every=config.run.eval_every,
    )


def make_engine(config: ConfigDict, params: Any) -> Engine:
    """The engine that the config names, for parameters of these shapes.

    Raises:
      ValueError: an option of the resolver is out of range.
    """
    conflict = config.conflict
    per_block = conflict.log_blocks and conflict.granularity == "global"
    return Engine(
        name=conflict.engine,
        resolver=make_resolver(config),
        groups=make_groups(params, conflict.granularity, (STACKED,)),
        watched=make_groups(params, "block", (STACKED,)) if per_block else None,
        num_abilities=len(config.abilities),
        stacked=(STACKED,),
        accumulate=config.optimizer.accumulate,
        rows_dtype=conflict.rows_dtype,
    )


def make_resolver(config: ConfigDict) -> Resolver:
    """The resolver with its options, inside the wrappers that the config turns on."""
    conflict = config.conflict
    options = dict(conflict.options.get(conflict.resolver, {}))
    factory = RESOLVERS[conflict.resolver]
    if "seed" in inspect.signature(factory).parameters:
        options["seed"] = config.run.seed
    resolver = factory(**options)
    if conflict.noise_gate:
        resolver = noise_gate(resolver, conflict.noise_gate)
    if conflict.margin:
        resolver = margin(resolver, conflict.margin)
    if conflict.match_mean_norm:
        resolver = match_mean_norm(resolver)
    if conflict.ema_weights:
        resolver = ema_weights(resolver, conflict.ema_weights)
    if conflict.every_n > 1:
        resolver = every_n(resolver, conflict.every_n)
    return resolver


def make_metric(config: ConfigDict) -> Callable[[optax.OptState], Any]:
    """From the optimizer's state to the metric of the inner products."""
    if config.conflict.metric == "euclid":
        return lambda opt_state: None
    optimizer = config.optimizer
    return partial(adam_metric, b2=optimizer.b2, eps=optimizer.eps)


def prior_weights(config: ConfigDict, sizes_K: Sequence[int]) -> np.ndarray:
    """The prior that the config asks for, float32 [K].

    "meta" is what it is without a prediction; see `meta_prior.with_predicted_prior`.
    """
    mixture = config.mixture
    kind = mixture.prior
    if kind == "meta":
        kind = mixture.meta.fallback
        kind = "uniform" if kind == "network" else kind
    given = [ability.weight for ability in config.abilities.values()]
    return prior(kind, sizes_K, mixture.temperature, given)
