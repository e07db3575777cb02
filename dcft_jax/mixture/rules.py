"""Rules: from feedback to mixture weights, as pure functions over an explicit state."""

from collections.abc import Callable

from dcft_jax.mixture.fixed import static
from dcft_jax.mixture.mirror_descent import mirror_descent
from dcft_jax.mixture.rule import MixtureRule

RULES: dict[str, Callable[..., MixtureRule]] = {
    "static": static,
    "mirror_descent": mirror_descent,
}
