"""Mixture weights of abilities: signals, rules, allocation to slots.

Usable alone in any training loop; start at `RULES` and `allocate`.
"""

from dcft_jax.mixture.allocation import allocate, objective_weights
from dcft_jax.mixture.components import (
    ability_sums,
    component_weights,
    components,
)
from dcft_jax.mixture.feedback import Feedback, unmeasured
from dcft_jax.mixture.fixed import static
from dcft_jax.mixture.mirror_descent import MirrorDescentState, mirror_descent
from dcft_jax.mixture.priors import prior
from dcft_jax.mixture.repetition import (
    cap_repetition,
    epochs,
    max_weights,
    row_budgets,
)
from dcft_jax.mixture.rule import MixtureRule
from dcft_jax.mixture.rules import RULES
from dcft_jax.mixture.signals import SIGNALS, normalised_gap, paired_progress
from dcft_jax.mixture.simplex import cap, mix_floor
from dcft_jax.mixture.tier_rule import TierFeedback, TierRule, unmeasured_tiers
from dcft_jax.mixture.tiers import TIER_RULES

__all__ = [
    "RULES",
    "SIGNALS",
    "TIER_RULES",
    "Feedback",
    "MirrorDescentState",
    "MixtureRule",
    "TierFeedback",
    "TierRule",
    "ability_sums",
    "allocate",
    "cap",
    "cap_repetition",
    "component_weights",
    "components",
    "epochs",
    "max_weights",
    "mirror_descent",
    "mix_floor",
    "normalised_gap",
    "objective_weights",
    "paired_progress",
    "prior",
    "row_budgets",
    "static",
    "unmeasured",
    "unmeasured_tiers",
]
