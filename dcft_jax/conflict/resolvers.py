"""Resolvers: from the Gramian of the abilities to coefficients of their gradients.

A resolver is a pair of pure functions over an explicit state, as in optax. It sees
K x K numbers only, so it costs nothing next to a training step, and it can be jitted
and vmapped. For every resolver here:

- an ability that is absent (`G_kk == 0`) or whose row is not finite gets coefficient
  0 and takes no part in anything; the weights of the others are not renormalised;
- the weights are how much each ability counts, and the coefficients are comparable to
  them: `mean` returns the weights.
"""

from collections.abc import Callable

from dcft_jax.conflict.balancers import dwa, famo, uw
from dcft_jax.conflict.bargaining import fairgrad, nash_mtl
from dcft_jax.conflict.baselines import mean, random_weights
from dcft_jax.conflict.cones import dualproj, pcd, upgrad
from dcft_jax.conflict.convergence import coba
from dcft_jax.conflict.min_norm import cagrad, mgda
from dcft_jax.conflict.projections import gradvac, pcgrad
from dcft_jax.conflict.resolver import Resolver
from dcft_jax.conflict.spectral import aligned_mtl, con_fig, imtl_g

RESOLVERS: dict[str, Callable[..., Resolver]] = {
    "mean": mean,
    "random": random_weights,
    "pcgrad": pcgrad,
    "gradvac": gradvac,
    "upgrad": upgrad,
    "dualproj": dualproj,
    "pcd": pcd,
    "mgda": mgda,
    "cagrad": cagrad,
    "nash_mtl": nash_mtl,
    "fairgrad": fairgrad,
    "imtl_g": imtl_g,
    "aligned_mtl": aligned_mtl,
    "con_fig": con_fig,
    # From the losses alone.
    "famo": famo,
    "coba": coba,
    "uw": uw,
    "dwa": dwa,
}
