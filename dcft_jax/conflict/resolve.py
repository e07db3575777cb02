"""One call for people with their own training loop."""

from typing import Any

import jax

from dcft_jax.conflict.diagnostics import Diagnostics, diagnose
from dcft_jax.conflict.gramian import combine, grouped_gramian
from dcft_jax.conflict.groups import Groups, one_group
from dcft_jax.conflict.resolution import resolve_groups
from dcft_jax.conflict.resolver import Resolver
from dcft_jax.conflict.sharded import spread_slots


def resolve_gradients(
    grads: Any,
    weights_K: jax.Array,
    resolver: Resolver,
    state: Any,
    *,
    loss_K: jax.Array | None = None,
    scale: Any = None,
    groups: Groups | None = None,
) -> tuple[Any, Any, Diagnostics]:
    """Resolves the conflicts between K gradients into one update.

        resolver = RESOLVERS["dualproj"]()
        state = resolver.init(num_abilities)
        grads = jax.vmap(jax.grad(loss), (None, 0))(params, batches)  # leaves [K, ...]
        update, state, info = resolve_gradients(grads, weights_K, resolver, state)

    Args:
      grads: pytree of arrays `[K, ...]`: the gradient of the mean loss of each ability.
        All zeros, or anything not finite, means that the ability is absent.
      weights_K: how much each ability counts.
      resolver: from `RESOLVERS`.
      state: from `resolver.init(K)`, or `init_groups` for several groups, or the
        previous call.
      loss_K: the losses themselves, for resolvers that look at them.
      scale: the metric, from `adam_metric`; None: Euclidean.
      groups: parameters to be resolved apart, from `make_groups`; None: all together.

    Returns:
      The update, a pytree like one gradient, for the optimizer; the new state of the
      resolver; what happened.
    """
    groups = groups or one_group(grads)
    grads = spread_slots(grads, groups)
    gram_GKK = grouped_gramian(grads, groups, scale)
    coefficients_GK, state = resolve_groups(
        resolver, gram_GKK, weights_K, state, loss_K
    )
    info = diagnose(gram_GKK, weights_K, coefficients_GK)
    return combine(grads, coefficients_GK, groups), state, info
