"""Rules: from feedback to mixture weights, as pure functions over an explicit state."""

from collections.abc import Callable

from dcft_jax.mixture.ado import ado
from dcft_jax.mixture.aioli import aioli
from dcft_jax.mixture.coba import coba
from dcft_jax.mixture.doge import doge
from dcft_jax.mixture.dynamix_sft import dynamix_sft
from dcft_jax.mixture.excess import auto_mix_align, doremi, sheared, velocitune
from dcft_jax.mixture.fixed import dmt, proportional, random_walk, static, temperature
from dcft_jax.mixture.grape import grape
from dcft_jax.mixture.mirror_descent import mirror_descent
from dcft_jax.mixture.msft import msft
from dcft_jax.mixture.odm import odm
from dcft_jax.mixture.pike import pike
from dcft_jax.mixture.replay import replay
from dcft_jax.mixture.rule import MixtureRule
from dcft_jax.mixture.skill_it import skill_it

RULES: dict[str, Callable[..., MixtureRule]] = {
    "static": static,
    "proportional": proportional,
    "temperature": temperature,
    "dmt": dmt,
    "random_walk": random_walk,
    "replay": replay,
    "mirror_descent": mirror_descent,
    "ado": ado,
    "aioli": aioli,
    "doge": doge,
    "grape": grape,
    "pike": pike,
    "auto_mix_align": auto_mix_align,
    "coba": coba,
    "doremi": doremi,
    "dynamix_sft": dynamix_sft,
    "msft": msft,
    "odm": odm,
    "sheared": sheared,
    "skill_it": skill_it,
    "velocitune": velocitune,
}
