"""Rules: from feedback to mixture weights, as pure functions over an explicit state."""

from collections.abc import Callable

from dcft_jax.mixture.ado import ado
from dcft_jax.mixture.aioli import aioli
from dcft_jax.mixture.doge import doge
from dcft_jax.mixture.fixed import static
from dcft_jax.mixture.grape import grape
from dcft_jax.mixture.mirror_descent import mirror_descent
from dcft_jax.mixture.pike import pike
from dcft_jax.mixture.rule import MixtureRule

RULES: dict[str, Callable[..., MixtureRule]] = {
    "static": static,
    "mirror_descent": mirror_descent,
    "ado": ado,
    "aioli": aioli,
    "doge": doge,
    "grape": grape,
    "pike": pike,
}
