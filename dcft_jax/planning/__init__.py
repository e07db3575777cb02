"""What a config needs, before anything is rented: memory, traffic, operations, time."""

from dcft_jax.planning.as_json import as_json
from dcft_jax.planning.exhausted import explain_exhausted, is_exhausted
from dcft_jax.planning.plan import Plan, make_plan
from dcft_jax.planning.show import show_plan

__all__ = [
    "Plan",
    "as_json",
    "explain_exhausted",
    "is_exhausted",
    "make_plan",
    "show_plan",
]
