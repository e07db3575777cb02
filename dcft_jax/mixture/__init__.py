"""Mixture weights of abilities: signals, rules, difficulty tiers, allocation to slots.

Usable alone in any training loop; start at `RULES` and `allocate`.
"""

from dcft_jax.mixture.actuators import ACTUATORS, objective_weights, sampling_shares
from dcft_jax.mixture.allocation import allocate
from dcft_jax.mixture.components import (
    ability_sums,
    component_weights,
    components,
)
from dcft_jax.mixture.feedback import Feedback, unmeasured
from dcft_jax.mixture.history import History, empty_history, record
from dcft_jax.mixture.mirror_descent import MirrorDescentState, mirror_descent
from dcft_jax.mixture.power_law import (
    PowerLaw,
    fit_power_law,
    fit_power_law_robustly,
    predict,
)
from dcft_jax.mixture.priors import prior
from dcft_jax.mixture.references import reference_losses
from dcft_jax.mixture.repetition import (
    cap_repetition,
    epochs,
    max_weights,
    row_budgets,
)
from dcft_jax.mixture.rule import (
    GRAMIAN,
    NEEDS,
    NOISE,
    REFERENCE_LOSS,
    REFERENCE_MODEL,
    TRANSFER,
    VIRTUAL_STEP,
    MixtureRule,
)
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
from dcft_jax.mixture.tier_rule import TierFeedback, TierRule, unmeasured_tiers
from dcft_jax.mixture.tiers import TIER_RULES

__all__ = [
    "ACTUATORS",
    "GRAMIAN",
    "NEEDS",
    "NEEDS_OF_SIGNALS",
    "NOISE",
    "REFERENCE_LOSS",
    "REFERENCE_MODEL",
    "RULES",
    "SIGNALS",
    "TIER_RULES",
    "TRANSFER",
    "VIRTUAL_STEP",
    "Feedback",
    "History",
    "MirrorDescentState",
    "MixtureRule",
    "PowerLaw",
    "TierFeedback",
    "TierRule",
    "ability_sums",
    "accuracy",
    "allocate",
    "cap",
    "cap_repetition",
    "component_weights",
    "components",
    "empty_history",
    "epochs",
    "fit_power_law",
    "fit_power_law_robustly",
    "gradient_alignment",
    "improvement_rate",
    "max_weights",
    "mirror_descent",
    "mix_floor",
    "normalised_gap",
    "objective_weights",
    "paired_progress",
    "predict",
    "prior",
    "recent_slope",
    "record",
    "reference_losses",
    "row_budgets",
    "sampling_shares",
    "unmeasured",
    "unmeasured_tiers",
]
