"""The computation of a run: pure functions that the config alone decides."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dcft_jax.conflict import RESOLVERS, Resolver
from dcft_jax.evaluation.losses import make_eval_step
from dcft_jax.mixture import RULES, MixtureRule, prior
from dcft_jax.models import ModelConfig
from dcft_jax.models import init as init_params
from dcft_jax.sharding import Rules
from dcft_jax.training.optimizer import make_optimizer, make_schedule
from dcft_jax.training.state import TrainState, init_mixture, init_state
from dcft_jax.training.step import make_train_step


@dataclasses.dataclass(frozen=True)
class Program:
    model: ModelConfig
    rule: MixtureRule
    schedule: optax.Schedule
    init: Callable[[], TrainState]
    train_step: Callable  # jitted (state, frozen, batch) -> (state, metrics)
    eval_step: Callable  # jitted (params, batch) -> sums


def build_program(
    config: ConfigDict, vocab_size: int, sizes_K: Sequence[int], num_examples: int
) -> Program:
    """Builds the functions; nothing is computed.

    Args:
      vocab_size: of the tokenizer.
      sizes_K: train rows of each ability, for priors that depend on size.
      num_examples: of the largest mix-val set.

    Raises:
      ValueError: a field of the model or the mixture is out of range.
    """
    rules = Rules.from_config(config.mesh.rules)
    model = ModelConfig.from_config(config.model, vocab_size, rules)
    num_steps = config.run.num_steps
    optimizer = make_optimizer(config.optimizer, num_steps)
    rule, resolver = make_rule(config), make_resolver(config)
    accumulate = config.optimizer.accumulate
    step = make_train_step(model, optimizer, resolver, rule, accumulate)
    prior_K = prior_weights(config, sizes_K)

    def init() -> TrainState:
        params = init_params(model, jax.random.key(config.run.seed))
        mixture = init_mixture(rule, jnp.asarray(prior_K), num_examples)
        return init_state(params, optimizer, resolver, mixture)

    return Program(
        model=model,
        rule=rule,
        schedule=make_schedule(config.optimizer, num_steps),
        init=init,
        train_step=jax.jit(step, donate_argnums=0),
        eval_step=make_eval_step(model),
    )


def make_rule(config: ConfigDict) -> MixtureRule:
    """The mixture rule that the config names."""
    mixture = config.mixture
    if mixture.rule == "static":
        return RULES["static"]()
    return RULES[mixture.rule](
        step_size=mixture.step_size,
        anchor=mixture.anchor,
        floor=mixture.floor,
        max_weight_K=[ability.max_weight for ability in config.abilities.values()],
        smoothing=mixture.smoothing,
        warmup_updates=mixture.warmup_updates,
        signals=mixture.signals.to_dict(),
    )


def make_resolver(config: ConfigDict) -> Resolver:
    factory = RESOLVERS[config.conflict.resolver]
    if config.conflict.resolver == "pcgrad":  # visits abilities in random order
        return factory(seed=config.run.seed)
    return factory()


def prior_weights(config: ConfigDict, sizes_K: Sequence[int]) -> np.ndarray:
    """The prior that the config asks for, float32 [K]."""
    mixture = config.mixture
    given = [ability.weight for ability in config.abilities.values()]
    return prior(mixture.prior, sizes_K, mixture.temperature, given)
