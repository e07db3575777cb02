"""Inner products and combinations of per-slot gradients, leaf by leaf, never ravelled.

Every function takes a pytree whose leaves have the slots (or abilities) as leading
axis. Without a mesh they are plain sums. On a mesh with explicit axes the sharding is
read from the types of the leaves, so the caller says nothing about it.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

# Elements per slot that one dot contracts. Longer float32 contractions lose digits
# (up to 10 % at 4e7 elements in some CPU builds), shorter ones lose speed; and only
# one chunk at a time is ever copied into the layout the dot wants.
CHUNK = 2**16


def slot_gramian(grads: Any) -> jax.Array:
    """Inner products of the gradients of S slots: `gram_SS[i, j] = <g_i, g_j>`.

    Args:
      grads: pytree of arrays `[S, ...]`, any floating dtype, in any sharding. Leaves
        sharded along the slots are resharded by `spread_slots` first.

    Returns:
      float32 `[S, S]`, replicated. A slot with a non-finite gradient spoils its own
      row and column only.

    Raises:
      ValueError: if the tree is empty or the leading axes differ.
    """
    _num_slots(grads)
    leaves = jax.tree.leaves(spread_slots(grads))
    shardings = [jax.typeof(leaf).sharding for leaf in leaves]
    axes = _sharded_axes(shardings)
    if not axes:
        return _local_gramian(leaves, [1] * len(leaves))
    mesh = next(s.mesh for s in shardings if not s.mesh.empty)
    # A leaf that is not split over one of the axes is seen, and summed, more than once.
    copies = [
        math.prod(mesh.shape[a] for a in axes if a not in _sharded_axes([s]))
        for s in shardings
    ]
    return jax.shard_map(
        lambda *local: lax.psum(_local_gramian(local, copies), axes),
        mesh=mesh,
        in_specs=tuple(s.spec for s in shardings),
        out_specs=PartitionSpec(None, None),
    )(*leaves)


def spread_slots(grads: Any) -> Any:
    """Moves mesh axes off the slot axis, onto another dimension of the same leaf.

    One all-to-all per leaf: afterwards every chip holds all S slots of its part of the
    parameters, so inner products and combinations over slots are local. The axes go to
    the dimension with the longest local extent they divide, behind the axes that
    already split it; a leaf without such a dimension (they are small) is replicated
    along them. No-op where the slots are not sharded.
    """
    return jax.tree.map(_spread, grads)


def combine(grads: Any, coefficients_S: jax.Array) -> Any:
    """`sum_s c_s g_s`, leaf by leaf, accumulated in float32.

    A slot with coefficient 0 is left out, not multiplied: non-finite gradients of
    masked slots do not reach the result.

    Returns:
      A pytree of arrays `[...]` in the dtype of the leaves. On a mesh the sharding is
      that of `spread_slots` without the slot axis; reshard it to the parameters'.

    Raises:
      ValueError: if the number of coefficients is not the number of slots.
    """
    num_slots = _num_slots(grads)
    if coefficients_S.shape != (num_slots,):
        raise ValueError(
            f"coefficients have shape {coefficients_S.shape}, the gradients hold "
            f"{num_slots} slots: pass one coefficient per slot."
        )
    coefficients_S = coefficients_S.astype(jnp.float32)

    def weigh(grads: Any) -> Any:
        return jax.tree.map(lambda g: _weigh_leaf(g, coefficients_S), grads)

    def weigh_the_kept(grads: Any) -> Any:
        return weigh(jax.tree.map(lambda g: _blank(g, coefficients_S == 0), grads))

    # Blanking costs a pass over all gradients, and nearly every step keeps all slots.
    some_left_out = jnp.any(coefficients_S == 0)
    return lax.cond(some_left_out, weigh_the_kept, weigh, spread_slots(grads))


def cosine_gramian(gram_KK: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Splits a Gramian into cosines, relative norms and presence.

    Returns:
      cosines_KK: in [-1, 1], the identity in rows and columns of the absent.
      norms_K: `sqrt(G_kk)` over the largest of them, 1 for the absent.
      present_K: bool; `G_kk` is finite and positive and so is the row (finite).
    """
    gram_KK = gram_KK.astype(jnp.float32)
    diagonal_K = jnp.diagonal(gram_KK)
    sound_K = jnp.isfinite(diagonal_K) & (diagonal_K > 0)
    present_K = sound_K & jnp.all(jnp.isfinite(gram_KK) | ~sound_K, axis=1)
    both_KK = present_K[:, None] & present_K
    norms_K = jnp.sqrt(jnp.where(present_K, diagonal_K, 1.0))
    # Two divisions, because the product of two norms can leave the float32 range.
    cosines_KK = jnp.where(both_KK, gram_KK, 0.0) / norms_K[:, None] / norms_K
    identity_KK = jnp.eye(len(gram_KK), dtype=bool)
    cosines_KK = jnp.where(identity_KK, 1.0, jnp.clip(cosines_KK, -1.0, 1.0))
    largest = jnp.max(jnp.where(present_K, norms_K, 0.0), initial=0.0)
    relative_K = norms_K / jnp.where(largest > 0, largest, 1.0)
    return cosines_KK, jnp.where(present_K, relative_K, 1.0), present_K


def _num_slots(grads: Any) -> int:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(grads)]
    leading = {shape[:1] for shape in shapes}
    if len(leading) != 1 or () in leading:
        raise ValueError(
            "gradients must be a non-empty pytree of arrays with one common leading "
            f"(slot) axis, got leading axes {sorted(leading)}."
        )
    return shapes[0][0]


def _axes(entry: Any) -> tuple[str, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def _sharded_axes(shardings: list[Any]) -> tuple[str, ...]:
    found = {a: None for s in shardings for entry in s.spec for a in _axes(entry)}
    return tuple(found)


def _spread(leaf: jax.Array) -> jax.Array:
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
    fits = [d for d in range(1, leaf.ndim) if local[d] % parts == 0]
    if fits:
        chosen = max(fits, key=lambda d: local[d])
        spec[chosen] = (*_axes(spec[chosen]), *lead)
    return jax.sharding.reshard(leaf, NamedSharding(mesh, PartitionSpec(*spec)))


def _local_gramian(leaves: Any, copies: list[int]) -> jax.Array:
    parts = [_leaf_gramian(g) / n for g, n in zip(leaves, copies, strict=True)]
    return jnp.sum(jnp.stack(parts), axis=0)


def _leaf_gramian(leaf_S: jax.Array) -> jax.Array:
    """Gramian of one leaf `[S, ...]`, chunk by chunk, without reshaping it."""
    if AxisType.Auto in jax.typeof(leaf_S).sharding.mesh.axis_types:
        return _dot(leaf_S)  # the partitioner cannot slice a split axis in place
    leaf_S = leaf_S[:, None] if leaf_S.ndim == 1 else leaf_S
    axis, size = _chunks(leaf_S.shape)
    lead = leaf_S.shape[1:axis]
    whole, rest = divmod(leaf_S.shape[axis], size)
    if math.prod(lead) * whole <= 1 and not rest:
        return _dot(leaf_S)
    sizes = (leaf_S.shape[0], *(1 for _ in lead), size, *leaf_S.shape[axis + 1 :])

    def add_chunk(i, gram_SS):
        *outer, inner = jnp.unravel_index(i, (*lead, whole))
        starts = [0, *outer, inner * size] + [0] * (leaf_S.ndim - axis - 1)
        return gram_SS + _dot(lax.dynamic_slice(leaf_S, starts, sizes))

    # The remainder comes first: it also gives the loop's carry the right type.
    tail = lax.slice_in_dim(leaf_S, whole * size, whole * size + rest, axis=axis)
    return lax.fori_loop(0, math.prod(lead) * whole, add_chunk, _dot(tail))


def _chunks(shape: tuple[int, ...]) -> tuple[int, int]:
    """The axis to cut, and how long a piece of it holds about CHUNK elements."""
    axis = 1
    while axis < len(shape) - 1 and math.prod(shape[axis + 1 :]) > CHUNK:
        axis += 1
    fitting = CHUNK // max(1, math.prod(shape[axis + 1 :]))
    return axis, max(1, min(fitting, shape[axis]))


def _dot(leaf_S: jax.Array) -> jax.Array:
    rest = range(2, leaf_S.ndim + 1)
    return jnp.einsum(
        leaf_S,
        [0, *rest],
        leaf_S,
        [1, *rest],
        [0, 1],
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def _weigh_leaf(leaf_S: jax.Array, coefficients_S: jax.Array) -> jax.Array:
    # A dot: on CPU XLA sums over a leading axis thirty times slower.
    rest = range(1, leaf_S.ndim)
    combined = jnp.einsum(
        coefficients_S,
        [0],
        leaf_S,
        [0, *rest],
        [*rest],
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    return combined.astype(leaf_S.dtype)


def _blank(leaf_S: jax.Array, left_out_S: jax.Array) -> jax.Array:
    left_out_S = left_out_S.reshape(-1, *[1] * (leaf_S.ndim - 1))
    return jnp.where(left_out_S, jnp.zeros((), leaf_S.dtype), leaf_S)
