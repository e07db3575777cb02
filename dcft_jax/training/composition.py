"""What a run's mixture is made of, and from a rule's state to weights and shares."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax.mixture import (
    MixtureRule,
    TierRule,
    ability_sums,
    cap_repetition,
    component_weights,
    components,
    row_budgets,
    sampling_shares,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Composition:
    """Decided before the first step. K abilities, of at most T tiers each."""

    rule: MixtureRule
    tier_rule: TierRule
    actuator: str  # of mixture.ACTUATORS
    prior_K: np.ndarray
    size_KT: np.ndarray  # train rows of each tier; 0: there is no such tier
    max_epochs_K: np.ndarray  # 0: no limit
    tier_KN: np.ndarray  # int8, which tier each mix-val example is in; -1: no example
    given_reference_K: np.ndarray  # nats; nan: none
    references: str  # "given" | "fitted", where none is given
    num_steps: int
    num_slots: int
    rows_per_slot: int
    eval_every: int

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """`ability_C`, `tier_C`: the components that slots are allocated to."""
        return components(self.size_KT)

    @property
    def num_parts(self) -> int:
        return len(self.parts[0])

    @property
    def rows_per_epoch_C(self) -> np.ndarray:
        return self.size_KT[self.parts]


def weights_and_shares(
    composition: Composition,
    rule_state: Any,
    tier_state: Any,
    rows_C: jax.Array,
    credit_C: jax.Array,
    step: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """`weights_K` of the objective and `shares_C` of the slots.

    A component that would be repeated more often than `max_epochs` allows gets fewer
    slots, and its ability that much less weight, so that no objective makes up for it.
    """
    ability_C, tier_C = composition.parts
    num_abilities = len(composition.prior_K)
    weights_K = composition.rule.weights(rule_state)
    sampled_K = sampling_shares(
        composition.actuator, weights_K, jnp.asarray(composition.prior_K)
    )
    shares_KT = composition.tier_rule.shares(tier_state)
    wanted_C = component_weights(sampled_K, shares_KT, ability_C, tier_C)
    if not np.any(composition.max_epochs_K > 0):
        return weights_K, wanted_C
    budget_C = row_budgets(
        composition.rows_per_epoch_C, composition.max_epochs_K[ability_C]
    )
    shares_C, _ = cap_repetition(
        wanted_C,
        jnp.asarray(budget_C),
        rows_C,
        credit_C,
        composition.num_steps - step,
        composition.num_slots,
        composition.rows_per_slot,
        margin=1.0,
    )
    before_K, after_K = (
        ability_sums(value_C, ability_C, num_abilities)
        for value_C in (wanted_C, shares_C)
    )
    capped_K = weights_K * after_K / jnp.where(before_K > 0, before_K, 1.0)
    total = jnp.sum(capped_K)
    return jnp.where(total > 0, capped_K / total, weights_K), shares_C
