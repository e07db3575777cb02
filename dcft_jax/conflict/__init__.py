"""Conflicts between the gradients of abilities: Gramian, resolvers, diagnostics.

Usable alone in any JAX training loop; start at `resolve_gradients`.
"""

from dcft_jax.conflict.diagnostics import Diagnostics, diagnose
from dcft_jax.conflict.gramian import (
    combine,
    cosine_gramian,
    slot_gramian,
    spread_slots,
)
from dcft_jax.conflict.resolve import resolve_gradients
from dcft_jax.conflict.resolvers import RESOLVERS, Resolver, dualproj, mean, pcgrad
from dcft_jax.conflict.slots import ability_gramian, slot_coefficients
from dcft_jax.conflict.solver import solve_nnqp

__all__ = [
    "RESOLVERS",
    "Diagnostics",
    "Resolver",
    "ability_gramian",
    "combine",
    "cosine_gramian",
    "diagnose",
    "dualproj",
    "mean",
    "pcgrad",
    "resolve_gradients",
    "slot_coefficients",
    "slot_gramian",
    "solve_nnqp",
    "spread_slots",
]
