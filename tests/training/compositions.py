"""A composition without data, for tests of one part."""

import numpy as np

from dcft_jax.mixture import RULES, TIER_RULES
from dcft_jax.training.composition import Composition


def compose(prior_K=(0.5, 0.5), num_examples: int = 4, **changes) -> Composition:
    """K abilities of one tier at a static prior, unless something else is asked for."""
    num_abilities = len(prior_K)
    fields = dict(
        rule=RULES["static"](),
        tier_rule=TIER_RULES["static"](),
        actuator="both",
        prior_K=np.asarray(prior_K, np.float32),
        size_KT=np.full((num_abilities, 1), 10),
        max_epochs_K=np.zeros(num_abilities),
        tier_KN=np.zeros((num_abilities, num_examples), np.int8),
        given_reference_K=np.full(num_abilities, np.nan, np.float32),
        references="given",
        num_steps=100,
        num_slots=4,
        rows_per_slot=1,
        eval_every=5,
    )
    return Composition(**{**fields, **changes})
