"""Checks of what is evaluated, mixed and resolved."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from dcft_jax.config.require import one_of, positive, require
from dcft_jax.conflict import ENGINES, GRANULARITIES, METRICS, RESOLVERS
from dcft_jax.evaluation.sandbox import BACKENDS
from dcft_jax.meta import SHIPPED
from dcft_jax.mixture import (
    ACTUATORS,
    NOISE,
    REFERENCE_LOSS,
    REFERENCE_MODEL,
    RULES,
    TIER_RULES,
    MixtureRule,
    prior,
)
from dcft_jax.mixture.from_config import make_rule, make_tier_rule, rule_options
from dcft_jax.mixture.priors import KINDS


def check_evaluation(config: ConfigDict) -> None:
    evaluation = config.evaluation
    for name in ("generate_every", "mix_val_prompts", "test_prompts", "seconds"):
        value, off = evaluation[name], "" if name == "mix_val_prompts" else " (0: off)"
        low = 1 if name == "mix_val_prompts" else 0
        require(
            value >= low, f"evaluation.{name}", value, f"must be at least {low}{off}"
        )
    positive("evaluation", evaluation, ("max_new_tokens", "batch_size"))
    sandboxes = ("auto", "none", *BACKENDS)
    one_of("evaluation.sandbox", evaluation.sandbox, sandboxes)
    require(
        evaluation.sandbox != "weak" or evaluation.allow_weak_sandbox,
        "evaluation.sandbox",
        evaluation.sandbox,
        "limits time and memory only; consent with evaluation.allow_weak_sandbox, or "
        "choose auto",
    )
    generated = config.mixture.accuracy == "generated"
    require(
        not generated or evaluation.generate_every > 0,
        "evaluation.generate_every",
        evaluation.generate_every,
        'must be at least 1 for mixture.accuracy = "generated"',
    )


def check_mixture(config: ConfigDict) -> None:
    mixture = config.mixture
    for name, value, choices in (
        ("rule", mixture.rule, RULES),
        ("actuator", mixture.actuator, ACTUATORS),
        ("references", mixture.references, ("given", "fitted")),
        ("accuracy", mixture.accuracy, ("exact_match", "generated")),
        ("tiers.rule", mixture.tiers.rule, TIER_RULES),
    ):
        one_of(f"mixture.{name}", value, choices)
    positive("mixture", mixture, ("mix_val_blocks",))
    _check_prior(config)
    rule = _check_rule(config)
    _check_noise(config, "mixture.rule", mixture.rule if NOISE in rule.needs else "")
    unknown = [n for n, a in config.abilities.items() if a.reference_loss is None]
    require(
        REFERENCE_LOSS not in rule.needs
        or mixture.references == "fitted"
        or not unknown,
        "mixture.rule",
        mixture.rule,
        f"needs a reference_loss of every ability, and {unknown} have none: give it, "
        'or set mixture.references = "fitted"',
    )
    by_loss = [n for n, a in config.abilities.items() if a.tiers.by == "loss"]
    for needed, what, other in (
        (REFERENCE_MODEL in rule.needs, f'rule "{mixture.rule}"', ""),
        (
            bool(by_loss) and not config.pretrained.path,
            f'tiers.by = "loss" of {by_loss}',
            ", or pretrained.path",
        ),
    ):
        require(
            not needed or bool(mixture.reference_run),
            "mixture.reference_run",
            mixture.reference_run,
            f"{what} needs the work directory of a finished run of the same model"
            + other,
        )
    for field in ("guard_run", "reference_run"):
        run = mixture[field]
        require(
            not run or (Path(run) / "summary.json").is_file(),
            f"mixture.{field}",
            run,
            "must be the work directory of a finished run, or empty",
        )


def _check_prior(config: ConfigDict) -> None:
    mixture, sizes_K = config.mixture, [1.0] * len(config.abilities)
    given = [ability.weight for ability in config.abilities.values()]
    if mixture.prior != "meta":
        prior(mixture.prior, sizes_K, mixture.temperature, given)
        return
    meta = mixture.meta
    one_of("mixture.meta.fallback", meta.fallback, ("network", *KINDS))
    if meta.fallback != "network":
        prior(meta.fallback, sizes_K, mixture.temperature, given)
    for field, file, wanted in (
        ("support", meta.support, 'examples of the task, as mixture.prior is "meta"'),
        ("network", meta.network or SHIPPED, "a fitted network, or empty"),
    ):
        is_file = Path(file).is_file()
        require(is_file, f"mixture.meta.{field}", file, f"must be a file of {wanted}")
    require(
        not config.run.continue_from,
        "mixture.prior",
        mixture.prior,
        "is of a run that begins: without run.continue_from",
    )


def _check_rule(config: ConfigDict) -> MixtureRule:
    """Makes the rule, of abilities of one size: only its options can be wrong."""
    mixture, num_abilities = config.mixture, len(config.abilities)
    try:
        rule = make_rule(config, [1.0] * num_abilities)
        rule.init(jnp.full(num_abilities, 1.0 / num_abilities))
    except (TypeError, ValueError) as error:
        field = f"config.mixture.options.{mixture.rule}"
        options = dict(rule_options(config))
        raise ValueError(f"{field} = {options!r}: {error}") from error
    try:
        make_tier_rule(config)
    except (TypeError, ValueError) as error:
        name = mixture.tiers.rule
        raise ValueError(f"config.mixture.tiers.options.{name}: {error}") from error
    return rule


def check_conflict(config: ConfigDict) -> None:
    conflict, num_abilities = config.conflict, len(config.abilities)
    for name, choices in (
        ("resolver", RESOLVERS),
        ("engine", ENGINES),
        ("granularity", GRANULARITIES),
        ("metric", METRICS),
        ("rows_dtype", ("float32", "bfloat16")),
    ):
        one_of(f"conflict.{name}", conflict[name], choices)
    _check_resolver_options(conflict, num_abilities)
    for name, valid, allowed in (
        ("noise_gate", conflict.noise_gate >= 0, "must be at least 0 (0: off)"),
        ("margin", 0 <= conflict.margin < 1, "must be in [0, 1) (0: off)"),
        ("ema_weights", 0 <= conflict.ema_weights < 1, "must be in [0, 1) (0: off)"),
        ("every_n", conflict.every_n >= 1, "must be at least 1"),
    ):
        require(valid, f"conflict.{name}", conflict[name], allowed)
    _check_noise(config, "conflict.noise_gate", conflict.noise_gate)
    require(
        config.optimizer.accumulate == 1
        or conflict.engine in ("materialize", "accumulate"),
        "conflict.engine",
        conflict.engine,
        "Gramians of micro-batches do not add up: with optimizer.accumulate > 1 it "
        "must be materialize or accumulate",
    )


def _check_noise(config: ConfigDict, field: str, value: Any) -> None:
    """If the value is set: the noise of the gradients must be measurable."""
    num_abilities = len(config.abilities)
    require(
        not value
        or (
            config.conflict.engine != "accumulate"
            and config.data.num_slots >= 2 * num_abilities
        ),
        field,
        value,
        "measures the noise between slots of one ability: needs data.num_slots of at "
        f"least 2 x {num_abilities} abilities and another engine than accumulate",
    )


def _check_resolver_options(conflict: ConfigDict, num_abilities: int) -> None:
    name = conflict.resolver
    options = dict(conflict.options.get(name, {}))
    try:
        RESOLVERS[name](**options).init(num_abilities)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"config.conflict.options.{name} = {options!r}: {error}"
        ) from error
