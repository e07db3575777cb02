"""Gramians from inside the backward pass, without ever holding all gradients.

A tap is the identity on a parameter. In the backward pass it sees the gradients of all
slots of this one parameter, takes their inner products, adds them up with given
coefficients, and lets go of them. So S gradients cost the memory of one (plus S of the
largest matrix), also inside `lax.scan` and `jax.checkpoint`:

    row, gradient = vmap(grad(loss, (handles, params)), slots)

The Gramian comes out as the "gradient" of the probes, zero vectors that the taps read
and the loss does not depend on. Known from ghost norms (paxml, differential privacy)
for norms of examples; here for all products between slots.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.sharding import NamedSharding, PartitionSpec

from dcft_jax.conflict.gramian import blank, grouped_gramian, weigh_leaf
from dcft_jax.conflict.groups import one_group
from dcft_jax.conflict.sharded import replicated, spread_slots


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Handle:
    """What the tap of one parameter needs; stacked like the parameter if that is."""

    coefficient: jax.Array  # float32 scalar: of this slot in the sum
    probe_S: (
        jax.Array | None
    )  # zeros; their "gradient" is the slot's row of the Gramian
    scale: jax.Array | None  # the metric, like the parameter; None: Euclidean


def tap(params: Any, handles: Any) -> Any:
    """Marks parameters, where the model reads them and inside its scan over layers.

    Each parameter must be tapped once, even if it is used twice (tied embeddings):
    otherwise the products between its uses are missing.

    Args:
      params: pytree of arrays.
      handles: the same pytree with a `Handle` in place of each array.
    """
    return jax.tree.map(_tap, params, handles)


@jax.custom_vjp
def _tap(leaf: jax.Array, handle: Handle) -> jax.Array:
    del handle
    return leaf


def _forward(leaf: jax.Array, handle: Handle) -> tuple[jax.Array, Handle]:
    return leaf, handle


def _backward(handle: Handle, gradient: jax.Array) -> tuple[jax.Array, Any]:
    combined, row_S = _meet(gradient, handle)
    return combined, Handle(jnp.zeros_like(handle.coefficient), row_S, None)


_tap.defvjp(_forward, _backward)


@custom_vmap
def _meet(gradient: jax.Array, handle: Handle) -> tuple[jax.Array, jax.Array | None]:
    """Where the slots meet; runs without `vmap` only while shapes are traced."""
    return gradient * handle.coefficient.astype(gradient.dtype), handle.probe_S


@_meet.def_vmap
def _meet_all(num_slots: int, mapped: Any, grads_S: jax.Array, handle: Handle):
    """The sum is one array for all slots; of the Gramian each slot has a row."""
    _check_mapped(mapped)
    layout = jax.typeof(grads_S).sharding
    grads_S = spread_slots(grads_S)
    coefficient_S, gram_SS = replicated(handle.coefficient), None
    if handle.probe_S is not None:
        gram_SS = grouped_gramian(grads_S, one_group(grads_S), handle.scale)[0]
        # The previous step's coefficients cannot know what is not finite in this one.
        sound_S = jnp.isfinite(jnp.diagonal(gram_SS))
        coefficient_S = jnp.where(sound_S, coefficient_S, 0.0)
    combined = lax.cond(
        jnp.any(coefficient_S == 0),
        lambda: weigh_leaf(blank(grads_S, coefficient_S == 0), coefficient_S),
        lambda: weigh_leaf(grads_S, coefficient_S),
    ).astype(grads_S.dtype)
    if layout.mesh.explicit_axes:
        slot_axis, *rest = layout.spec
        combined = _reshard(combined, layout.mesh, *rest)
        if gram_SS is not None:
            gram_SS = _reshard(gram_SS, layout.mesh, slot_axis, None)
    return (combined, gram_SS), (False, None if gram_SS is None else True)


def _reshard(x: jax.Array, mesh: Any, *spec: Any) -> jax.Array:
    return jax.sharding.reshard(x, NamedSharding(mesh, PartitionSpec(*spec)))


def _check_mapped(mapped: Any) -> None:
    gradient, handle = mapped
    if not gradient or not handle.coefficient or handle.probe_S or handle.scale:
        raise ValueError(
            "a tap works under one vmap, over slots, with gradient and coefficient "
            f"mapped, probe and scale not; mapped here: {mapped}. Does the loss of "
            "every slot depend on every tapped parameter?"
        )
