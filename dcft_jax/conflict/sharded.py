"""Slots on a mesh with explicit axes: the sharding is read from the types of arrays.

Without such a mesh everything here does nothing.
"""

import math
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from dcft_jax.conflict.groups import Groups


def spread_slots(grads: Any, groups: Groups | None = None) -> Any:
    """Moves mesh axes off the slot axis, onto another dimension of the same leaf.

    One all-to-all per leaf: afterwards every chip holds all S slots of its part of the
    parameters, so inner products and combinations over slots are local. The axes go to
    the dimension with the longest local extent they divide, behind the axes that
    already split it; a leaf without such a dimension (they are small) is replicated
    along them. No-op where the slots are not sharded.

    Args:
      grads: pytree of arrays `[S, ...]`.
      groups: the layer axis of leaves that it splits into layers stays whole.
    """
    leaves, tree = jax.tree.flatten(grads)
    layers = groups.layers if groups else (0,) * len(leaves)
    return tree.unflatten(
        [_spread(leaf, 2 if n else 1) for leaf, n in zip(leaves, layers, strict=True)]
    )


def spread_like(scales: list[jax.Array], leaves: list[jax.Array]) -> list[jax.Array]:
    """Lays each scale `[...]` out as its leaf `[S, ...]` without the slot axis."""

    def one(scale: jax.Array, leaf: jax.Array) -> jax.Array:
        sharding = jax.typeof(leaf).sharding
        if not sharding.mesh.explicit_axes:
            return scale
        spec = PartitionSpec(*sharding.spec[1:])
        return jax.sharding.reshard(scale, NamedSharding(sharding.mesh, spec))

    return [one(*pair) for pair in zip(scales, leaves, strict=True)]


def replicated(x: jax.Array) -> jax.Array:
    """Whole on every device."""
    mesh = jax.typeof(x).sharding.mesh
    if not mesh.explicit_axes:
        return x
    spec = PartitionSpec(*(None,) * x.ndim)
    return jax.sharding.reshard(x, NamedSharding(mesh, spec))


def whole_slots(slots: Any) -> Any:
    """Batches `[S, B, ...]` with the slot axis whole on every device."""

    def one(x: jax.Array) -> jax.Array:
        sharding = jax.typeof(x).sharding
        if not sharding.mesh.explicit_axes:
            return x
        spec = PartitionSpec(None, *sharding.spec[1:])
        return jax.sharding.reshard(x, NamedSharding(sharding.mesh, spec))

    return jax.tree.map(one, slots)


def laid_like_slots(x_S: jax.Array, slots: Any) -> jax.Array:
    """`[S, ...]` split over the slots as the batches are."""
    sharding = jax.typeof(jax.tree.leaves(slots)[0]).sharding
    if not sharding.mesh.explicit_axes:
        return x_S
    spec = PartitionSpec(sharding.spec[0], *(None,) * (x_S.ndim - 1))
    return jax.sharding.reshard(x_S, NamedSharding(sharding.mesh, spec))


def sharded_axes(shardings: list[Any]) -> tuple[str, ...]:
    """The mesh axes that any of the arrays is split over."""
    found = {a: None for s in shardings for entry in s.spec for a in _axes(entry)}
    return tuple(found)


def _axes(entry: Any) -> tuple[str, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def _spread(leaf: jax.Array, first: int) -> jax.Array:
    sharding = jax.typeof(leaf).sharding
    spec = list(sharding.spec)
    lead = _axes(spec[0]) if spec else ()
    if not lead:
        return leaf
    mesh, spec[0] = sharding.mesh, None
    parts = math.prod(mesh.shape[a] for a in lead)
    local = [
        n // math.prod(mesh.shape[a] for a in _axes(entry))
        for n, entry in zip(leaf.shape, spec, strict=True)
    ]
    fits = [d for d in range(first, leaf.ndim) if local[d] % parts == 0]
    if fits:
        chosen = max(fits, key=lambda d: local[d])
        spec[chosen] = (*_axes(spec[chosen]), *lead)
    return jax.sharding.reshard(leaf, NamedSharding(mesh, PartitionSpec(*spec)))
