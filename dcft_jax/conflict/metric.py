"""The metric in which gradients are compared.

The step that Adam takes is not along the resolved gradient d but along P d, with P the
diagonal `1 / (sqrt(v) + eps)`. Whether it hurts ability k is the sign of
`<g_k, P d>`, so conflicts of the step that is really taken are those of `J P J^T`, and
resolvers that see this Gramian give their guarantees about it. (Momentum still mixes
in earlier updates, and weight decay is outside: the guarantee is about the fresh part.)
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

METRICS = ("euclid", "adam")


def adam_metric(opt_state: Any, b2: float, eps: float) -> Any:
    """P of the step before: what Adam multiplies a gradient by, float32, like `params`.

    All ones before the first step, when Adam knows no second moment yet.

    Args:
      opt_state: holds the state of exactly one `optax.scale_by_adam`.
      b2, eps: of that Adam.

    Raises:
      ValueError: if it does not.
    """
    states = [
        state
        for state in jax.tree.leaves(
            opt_state, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState)
        )
        if isinstance(state, optax.ScaleByAdamState)
    ]
    if len(states) != 1:
        raise ValueError(
            f"the optimizer state holds {len(states)} Adam states, expected one; use "
            'metric="euclid" with other optimizers.'
        )
    (state,) = states
    count = jnp.asarray(state.count)
    started = count > 0
    correction = 1.0 - b2 ** jnp.maximum(count, 1).astype(jnp.float32)

    def one(v: jax.Array) -> jax.Array:
        root = jnp.sqrt(v.astype(jnp.float32) / correction)
        return jnp.where(started, 1.0 / (root + eps), 1.0)

    return jax.tree.map(one, state.nu)
