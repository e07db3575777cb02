"""Gramians and weighted gradients of slots through taps: none is ever held whole."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dcft_jax.conflict.groups import Groups, make_groups
from dcft_jax.conflict.sharded import laid_like_slots, replicated
from dcft_jax.conflict.tap import Handle


def tapped_gramian(
    loss_fn: Callable,
    params: Any,
    frozen: Any,
    slots: Any,
    groups: Groups,
    stacked: tuple[str, ...],
    scale: Any = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Loss sums, token counts and Gramians `[G, S, S]`; no gradient comes out."""
    num_slots = _num_slots(slots)
    whole_GS = jnp.ones((len(groups.names), num_slots), jnp.float32)
    coefficients = _per_leaf(params, slots, whole_GS, groups, stacked)

    def one_slot(probes, coefficients, slot):
        handles = _handles(params, coefficients, probes, scale)
        return loss_fn(params, frozen, slot, handles)

    of_probes = jax.value_and_grad(one_slot, has_aux=True)
    (loss_S, count_S), rows = jax.vmap(of_probes, (None, 0, 0))(
        _probes(params, num_slots, stacked), coefficients, slots
    )
    return replicated(loss_S), replicated(count_S), _gramian(rows, groups)


def tapped_gradient(
    loss_fn: Callable,
    params: Any,
    frozen: Any,
    slots: Any,
    coefficients_GS: jax.Array,
    groups: Groups,
    stacked: tuple[str, ...],
    scale: Any = None,
    measured: Groups | None = None,
) -> tuple[Any, jax.Array, Any]:
    """`sum_s c_s g_s` with coefficients per group, the loss sums, and the Gramians
    `[G, S, S]` of the groups in `measured`, if wanted.
    """
    num_slots = _num_slots(slots)
    coefficients = _per_leaf(params, slots, coefficients_GS, groups, stacked)
    probes = _probes(params, num_slots, stacked) if measured else None

    def one_slot(params, probes, coefficients, slot):
        handles = _handles(params, coefficients, probes, scale)
        return loss_fn(params, frozen, slot, handles)[0]

    loss_S, (gradient, rows) = jax.vmap(
        jax.value_and_grad(one_slot, (0, 1)),
        in_axes=(None, None, 0, 0),
        out_axes=(0, (None, 0)),
    )(params, probes, coefficients, slots)
    gram_GSS = _gramian(rows, measured) if measured else None
    return gradient, replicated(loss_S), gram_GSS


def _num_slots(slots: Any) -> int:
    return jax.tree.leaves(slots)[0].shape[0]


def _probes(params: Any, num_slots: int, stacked: tuple[str, ...]) -> Any:
    """Zeros `[S]` for each parameter, `[N, S]` for a stack of N."""
    layers = make_groups(params, "matrix", stacked).layers
    leaves = [jnp.zeros((n, num_slots) if n else (num_slots,)) for n in layers]
    return jax.tree.structure(params).unflatten(leaves)


def _per_leaf(
    params: Any,
    slots: Any,
    coefficients_GS: jax.Array,
    groups: Groups,
    stacked: tuple[str, ...],
) -> Any:
    """Coefficients `[S]` for each parameter, `[S, N]` for a stack of N."""
    layers = make_groups(params, "matrix", stacked).layers
    leaves = [
        laid_like_slots(
            jnp.repeat(row[:, None], n, axis=1) if n and row.ndim == 1 else row, slots
        )
        for row, n in zip(groups.rows_of_leaves(coefficients_GS), layers, strict=True)
    ]
    return jax.tree.structure(params).unflatten(leaves)


def _handles(params: Any, coefficients: Any, probes: Any, scale: Any) -> Any:
    leaves, tree = jax.tree.flatten(params)
    none = [None] * len(leaves)
    return tree.unflatten(
        Handle(*fields)
        for fields in zip(
            jax.tree.leaves(coefficients),
            jax.tree.leaves(probes) if probes is not None else none,
            jax.tree.leaves(scale) if scale is not None else none,
            strict=True,
        )
    )


def _gramian(rows: Any, groups: Groups) -> jax.Array:
    """`[G, S, S]` from each slot's rows `[S, S]`, or `[S, N, S]` of a stack."""
    parts = []
    for row, n in zip(jax.tree.leaves(rows), groups.layers, strict=True):
        row = replicated(row)
        if row.ndim == 3:
            row = jnp.moveaxis(row, 1, 0) if n else jnp.sum(row, axis=1)
        parts.append(row)
    return groups.sum_leaves(parts)
