"""Conflicts between the gradients of abilities: Gramian, resolvers, diagnostics.

Usable alone in any JAX training loop; start at `resolve_gradients`, or, for engines
that never hold all gradients, at `resolved_gradient`.
"""

from dcft_jax.conflict.diagnostics import Diagnostics, diagnose, pareto_gap
from dcft_jax.conflict.engines import (
    ENGINES,
    Engine,
    EngineState,
    Outcome,
    Problem,
    init_engine,
    measured_gramian,
    resolved_gradient,
)
from dcft_jax.conflict.gramian import (
    combine,
    cosine_gramian,
    grouped_gramian,
    slot_gramian,
)
from dcft_jax.conflict.groups import GRANULARITIES, Groups, make_groups
from dcft_jax.conflict.metric import METRICS, adam_metric
from dcft_jax.conflict.noise import Noise, slot_noise
from dcft_jax.conflict.resolution import SlotSums, init_groups, resolve_slots
from dcft_jax.conflict.resolve import resolve_gradients
from dcft_jax.conflict.resolver import Observation, Resolver
from dcft_jax.conflict.resolvers import RESOLVERS
from dcft_jax.conflict.sharded import spread_slots
from dcft_jax.conflict.slots import ability_gramian, slot_coefficients
from dcft_jax.conflict.solver import solve_nnqp
from dcft_jax.conflict.tap import Handle, tap
from dcft_jax.conflict.wrappers import (
    ema_weights,
    every_n,
    margin,
    match_mean_norm,
    noise_gate,
)

__all__ = [
    "ENGINES",
    "GRANULARITIES",
    "METRICS",
    "RESOLVERS",
    "Diagnostics",
    "Engine",
    "EngineState",
    "Groups",
    "Handle",
    "Noise",
    "Observation",
    "Outcome",
    "Problem",
    "Resolver",
    "SlotSums",
    "ability_gramian",
    "adam_metric",
    "combine",
    "cosine_gramian",
    "diagnose",
    "ema_weights",
    "every_n",
    "grouped_gramian",
    "init_engine",
    "init_groups",
    "make_groups",
    "margin",
    "match_mean_norm",
    "measured_gramian",
    "noise_gate",
    "pareto_gap",
    "resolve_gradients",
    "resolve_slots",
    "resolved_gradient",
    "slot_coefficients",
    "slot_gramian",
    "slot_noise",
    "solve_nnqp",
    "spread_slots",
    "tap",
]
