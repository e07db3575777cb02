"""The rules that a config names, with their options."""

import inspect
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from dcft_jax.mixture.rule import MixtureRule
from dcft_jax.mixture.rules import RULES
from dcft_jax.mixture.tier_rule import TierRule
from dcft_jax.mixture.tiers import TIER_RULES


def make_rule(config: ConfigDict, sizes_K: Sequence[float]) -> MixtureRule:
    """The mixture rule that the config names.

    Args:
      sizes_K: train rows of each ability.

    Raises:
      ValueError, FileNotFoundError: an option of the rule is out of range.
    """
    factory = RULES[config.mixture.rule]
    names = list(config.abilities)
    abilities = config.abilities.values()
    of_the_run = dict(
        sizes_K=sizes_K,
        seed=config.run.seed,
        num_steps=config.run.num_steps,
        abilities=names,
        max_weight_K=[ability.max_weight for ability in abilities],
        retain_margin_K=[ability.retain_margin for ability in abilities],
    )
    wanted = inspect.signature(factory).parameters
    options = dict(rule_options(config))
    for field in ("general", "target"):  # rules know abilities by number
        if options.get(field) is not None:
            options[field] = [_index(names, field, name) for name in options[field]]
    return factory(
        **{k: v for k, v in of_the_run.items() if k in wanted},
        **options,
    )


def rule_options(config: ConfigDict) -> dict[str, Any]:
    """Those of the rule that is chosen, as plain values."""
    options = config.mixture.options.get(config.mixture.rule, ConfigDict())
    return options.to_dict()


def _index(names: Sequence[str], field: str, name: str) -> int:
    if name not in names:
        raise ValueError(f"{field} names {name!r}, expected some of {names}.")
    return names.index(name)


def make_tier_rule(config: ConfigDict) -> TierRule:
    tiers = config.mixture.tiers
    return TIER_RULES[tiers.rule](**dict(tiers.options.get(tiers.rule, {})))
