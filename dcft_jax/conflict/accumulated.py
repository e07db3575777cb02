"""Gradients of all abilities, slot after slot: K of them, however many slots."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dcft_jax.conflict.gramian import slot_gramian
from dcft_jax.conflict.materialized import micro_batches
from dcft_jax.conflict.sharded import whole_slots


def ability_rows(
    loss_fn: Callable,
    params: Any,
    frozen: Any,
    slots: Any,
    ability_S: jax.Array,
    num_abilities: int,
    accumulate: int = 1,
    dtype: str = "float32",
) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
    """Adds the gradients of the summed losses up per ability.

    Returns:
      loss_S, count_S: sums and token counts of the slots.
      sound_S: bool; a slot whose loss or gradient is not finite is left out of the
        rows.
      rows: pytree of arrays `[K, ...]` in `dtype`.
    """
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

    def gradient(part):
        (loss, count), grads = value_and_grad(params, frozen, part)
        return loss, count, grads

    def add_slot(rows, slot):
        parts, ability = slot
        total = gradient(jax.tree.map(lambda x: x[0], parts))
        rest = jax.tree.map(lambda x: x[1:], parts)

        def add_part(total, part):
            return jax.tree.map(jnp.add, total, gradient(part)), None

        (loss, count, grads), _ = lax.scan(add_part, total, rest)
        square = slot_gramian(jax.tree.map(lambda g: g[None], grads))[0, 0]
        sound = jnp.isfinite(square) & jnp.isfinite(loss)
        add = partial(_add_row, ability=ability, sound=sound)
        return jax.tree.map(add, rows, grads), (loss, count, sound)

    rows = jax.tree.map(
        lambda p: lax.broadcast(jnp.zeros_like(p, dtype), (num_abilities,)), params
    )
    parts = micro_batches(whole_slots(slots), accumulate)
    parts = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), parts)
    rows, (loss_S, count_S, sound_S) = lax.scan(add_slot, rows, (parts, ability_S))
    return loss_S, count_S, sound_S, rows


def _add_row(rows_K, grad, ability, sound):
    row = lax.dynamic_index_in_dim(rows_K, ability, 0, keepdims=False)
    row = row + jnp.where(sound, grad, 0.0).astype(row.dtype)
    return lax.dynamic_update_index_in_dim(rows_K, row, ability, 0)
