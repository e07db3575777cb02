"""One call for people with their own training loop."""

from typing import Any

import jax

from dcft_jax.conflict.diagnostics import Diagnostics, diagnose
from dcft_jax.conflict.gramian import combine, slot_gramian, spread_slots
from dcft_jax.conflict.resolvers import Resolver


def resolve_gradients(
    grads: Any, weights_K: jax.Array, resolver: Resolver, state: Any
) -> tuple[Any, Any, Diagnostics]:
    """Resolves the conflicts between K gradients into one update.

        resolver = dualproj()
        state = resolver.init(num_abilities)
        grads = jax.vmap(jax.grad(loss), (None, 0))(params, batches)  # leaves [K, ...]
        update, state, info = resolve_gradients(grads, weights_K, resolver, state)

    Args:
      grads: pytree of arrays `[K, ...]`: the gradient of the mean loss of each ability.
        All zeros, or anything not finite, means that the ability is absent.
      weights_K: how much each ability counts.
      resolver: from `RESOLVERS`.
      state: from `resolver.init(K)` or the previous call.

    Returns:
      The update, a pytree like one gradient, for the optimizer; the new state of the
      resolver; what happened.
    """
    grads = spread_slots(grads)
    gram_KK = slot_gramian(grads)
    coefficients_K, state = resolver.resolve(gram_KK, weights_K, state)
    info = diagnose(gram_KK, weights_K, coefficients_K)
    return combine(grads, coefficients_K), state, info
