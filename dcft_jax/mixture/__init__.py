"""Mixture weights of abilities: signals, rules, allocation to slots.

Usable alone in any training loop; start at `RULES` and `allocate`.
"""

from dcft_jax.mixture.ado import ado
from dcft_jax.mixture.aioli import aioli
from dcft_jax.mixture.allocation import allocate, objective_weights
from dcft_jax.mixture.doge import doge
from dcft_jax.mixture.feedback import Feedback, unmeasured
from dcft_jax.mixture.fixed import static
from dcft_jax.mixture.grape import grape
from dcft_jax.mixture.history import History, empty_history, record
from dcft_jax.mixture.mirror_descent import MirrorDescentState, mirror_descent
from dcft_jax.mixture.pike import pike
from dcft_jax.mixture.power_law import (
    PowerLaw,
    fit_power_law,
    fit_power_law_robustly,
    predict,
)
from dcft_jax.mixture.priors import prior
from dcft_jax.mixture.references import reference_losses
from dcft_jax.mixture.rule import MixtureRule
from dcft_jax.mixture.rules import RULES
from dcft_jax.mixture.signals import (
    NEEDS_OF_SIGNALS,
    SIGNALS,
    accuracy,
    gradient_alignment,
    improvement_rate,
    normalised_gap,
    paired_progress,
)
from dcft_jax.mixture.simplex import cap, mix_floor
from dcft_jax.mixture.slope import recent_slope

__all__ = [
    "NEEDS_OF_SIGNALS",
    "RULES",
    "SIGNALS",
    "Feedback",
    "History",
    "MirrorDescentState",
    "MixtureRule",
    "PowerLaw",
    "accuracy",
    "ado",
    "aioli",
    "allocate",
    "cap",
    "doge",
    "empty_history",
    "fit_power_law",
    "fit_power_law_robustly",
    "gradient_alignment",
    "grape",
    "improvement_rate",
    "mirror_descent",
    "mix_floor",
    "normalised_gap",
    "objective_weights",
    "paired_progress",
    "pike",
    "predict",
    "prior",
    "recent_slope",
    "record",
    "reference_losses",
    "static",
    "unmeasured",
]
