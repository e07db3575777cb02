"""From the Gramian of the slots to their coefficients: where a resolver is applied."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dcft_jax.conflict.diagnostics import Diagnostics, diagnose, group_cosines
from dcft_jax.conflict.noise import slot_noise
from dcft_jax.conflict.resolver import Observation, Resolver
from dcft_jax.conflict.slots import share_gramian, slot_coefficients, slot_shares


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SlotSums:
    """What S slots of a step say: sums over their response tokens."""

    gram_GSS: jax.Array  # float32, per group of parameters, of gradients of the sums
    loss_S: jax.Array  # float32, nats
    count_S: jax.Array  # float32, response tokens
    ability_S: jax.Array  # int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Resolved:
    coefficients_GK: jax.Array
    coefficients_GS: jax.Array  # the same for the slots: 0 for those left out
    present_K: jax.Array  # bool
    kept_S: jax.Array  # bool: slots that have a share in their ability's gradient
    state: Any
    diagnostics: Diagnostics


def init_groups(resolver: Resolver, num_abilities: int, num_groups: int) -> Any:
    """The resolver's state, once for each group of parameters."""
    state = resolver.init(num_abilities)
    if num_groups == 1:
        return state
    return jax.tree.map(
        lambda x: jnp.repeat(jnp.asarray(x)[None], num_groups, axis=0), state
    )


def resolve_groups(
    resolver: Resolver,
    gram_GKK: jax.Array,
    weights_K: jax.Array,
    state: Any,
    loss_K: jax.Array | None = None,
    stderr_GKK: jax.Array | None = None,
) -> tuple[jax.Array, Any]:
    """Coefficients `[G, K]` and the new state: the resolver on each group by itself."""
    if len(gram_GKK) == 1:
        stderr_KK = None if stderr_GKK is None else stderr_GKK[0]
        observation = Observation(loss_K, stderr_KK)
        out_K, state = resolver.resolve(gram_GKK[0], weights_K, state, observation)
        return out_K[None], state

    def one_group(gram_KK, stderr_KK, state):
        observation = Observation(loss_K, stderr_KK)
        return resolver.resolve(gram_KK, weights_K, state, observation)

    axes = (0, None if stderr_GKK is None else 0, 0)
    return jax.vmap(one_group, axes)(gram_GKK, stderr_GKK, state)


def resolve_slots(
    resolver: Resolver,
    sums: SlotSums,
    weights_K: jax.Array,
    state: Any,
    per_group: bool = True,
    applied_GK: jax.Array | None = None,
) -> Resolved:
    """Slots to abilities, abilities to coefficients, and what there is to log.

    Args:
      per_group: resolve each group by itself; otherwise their sum, as one group.
      applied_GK: what the update was made with, if not with the coefficients found
        here; the diagnostics are about these.
    """
    gram_SS = jnp.sum(sums.gram_GSS, axis=0)
    count_S = jnp.where(jnp.isfinite(sums.loss_S), sums.count_S, 0.0)
    share_KS = slot_shares(gram_SS, count_S, sums.ability_S, weights_K.shape[0])
    gram_GKK = jax.vmap(share_gramian, (0, None))(sums.gram_GSS, share_KS)
    noise = slot_noise(gram_SS, sums.count_S, share_KS)
    noise_of = jax.vmap(slot_noise, (0, None, None))
    stderr_GKK = noise_of(sums.gram_GSS, sums.count_S, share_KS).stderr_KK
    cosines_GKK = group_cosines(gram_GKK)
    if not per_group:
        gram_GKK = share_gramian(gram_SS, share_KS)[None]
        stderr_GKK = noise.stderr_KK[None]
    present_K, kept_S = jnp.any(share_KS > 0, axis=1), jnp.any(share_KS > 0, axis=0)
    loss_S = jnp.where(kept_S, sums.loss_S, 0.0)
    loss_K = jnp.where(present_K, slot_coefficients(loss_S, share_KS.T), jnp.nan)
    found_GK, state = resolve_groups(
        resolver, gram_GKK, weights_K, state, loss_K, stderr_GKK
    )
    info = diagnose(
        gram_GKK,
        weights_K,
        found_GK if applied_GK is None else applied_GK,
        noise,
        cosines_GKK,
    )
    return Resolved(
        coefficients_GK=found_GK,
        coefficients_GS=slot_coefficients(found_GK, share_KS),
        present_K=present_K,
        kept_S=kept_S,
        state=state,
        diagnostics=info,
    )
