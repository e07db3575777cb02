"""Gradients of all slots at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec


def slot_gradients(
    loss_fn: Callable, params: Any, frozen: Any, slots: Any, accumulate: int = 1
) -> tuple[jax.Array, jax.Array, Any]:
    """Loss sums, token counts and gradients of the sums, one per slot.

    Slots hold different rows, so the vmap costs the FLOPs of one plain batch.
    Gradients of sums add over micro-batches; Gramians would not.
    """

    def one_slot(slot: Any) -> tuple[jax.Array, jax.Array, Any]:
        value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, count), grads = value_and_grad(params, frozen, slot)
        return loss, count, grads

    all_slots = jax.vmap(one_slot)
    if accumulate == 1:
        return all_slots(slots)
    parts = micro_batches(slots, accumulate)
    first = all_slots(jax.tree.map(lambda x: x[0], parts))
    rest = jax.tree.map(lambda x: x[1:], parts)

    def add(total, part):
        return jax.tree.map(jnp.add, total, all_slots(part)), None

    return lax.scan(add, first, rest)[0]


def micro_batches(slots: Any, number: int) -> Any:
    """[S, B, ...] -> [number, S, B / number, ...]; each device splits its own rows."""

    def split(x_SB: jax.Array) -> jax.Array:
        num_slots, num_rows, *rest = x_SB.shape
        shape = (num_slots, num_rows // number, number, *rest)
        sharding, spec = jax.typeof(x_SB).sharding, None
        if sharding.mesh.explicit_axes:
            slot_axis, row_axis, *others = sharding.spec
            spec = PartitionSpec(slot_axis, row_axis, None, *others)
        return jnp.moveaxis(lax.reshape(x_SB, shape, out_sharding=spec), 2, 0)

    return jax.tree.map(split, slots)
