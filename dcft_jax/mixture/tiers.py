"""Rules over the difficulty tiers of each ability."""

from collections.abc import Callable

from dcft_jax.mixture.tier_bandit import bandit
from dcft_jax.mixture.tier_competence import competence
from dcft_jax.mixture.tier_rule import TierRule, normalised_sizes


def static() -> TierRule:
    """Every example as often as every other one of its ability: by size, for ever."""
    return TierRule(
        init=normalised_sizes,
        update=lambda feedback, state: state,
        shares=lambda state: state,
    )


TIER_RULES: dict[str, Callable[..., TierRule]] = {
    "static": static,
    "competence": competence,
    "bandit": bandit,
}
