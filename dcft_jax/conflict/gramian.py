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
from jax.sharding import AxisType, PartitionSpec

from dcft_jax.conflict.accurate import add_exactly
from dcft_jax.conflict.groups import Groups, one_group
from dcft_jax.conflict.sharded import sharded_axes, spread_like, spread_slots

# Elements per slot that are in work at a time: only so many are ever copied.
CHUNK = 2**16
# And that one dot contracts. CPUs may add the products one after the other, which loses
# digits: 5e-6 at 2^13 elements that repeat themselves, up to 10 % at 4e7.
BLOCK = 2**10


def slot_gramian(grads: Any, scale: Any = None) -> jax.Array:
    """Inner products of the gradients of S slots: `gram_SS[i, j] = <g_i, g_j>`.

    Args:
      grads: pytree of arrays `[S, ...]`, any floating dtype, in any sharding. Leaves
        sharded along the slots are resharded by `spread_slots` first.
      scale: pytree of arrays `[...]`, not negative, one for each leaf: the product is
        `sum_p scale_p g_ip g_jp`. None: Euclidean. See `adam_metric`.

    Returns:
      float32 `[S, S]`, replicated. A slot with a non-finite gradient spoils its own
      row and column only.

    Raises:
      ValueError: if the tree is empty or the leading axes differ.
    """
    return grouped_gramian(grads, one_group(grads), scale)[0]


def grouped_gramian(grads: Any, groups: Groups, scale: Any = None) -> jax.Array:
    """One Gramian per group of parameters, float32 `[G, S, S]`; see `slot_gramian`."""
    _num_slots(grads)
    leaves = jax.tree.leaves(spread_slots(grads, groups))
    scales = [None] * len(leaves)
    if scale is not None:
        scales = spread_like(jax.tree.leaves(scale), leaves)
    shardings = [jax.typeof(leaf).sharding for leaf in leaves]
    axes = sharded_axes(shardings)
    if not axes:
        return _local_gramian(leaves, scales, [1] * len(leaves), groups)
    mesh = next(s.mesh for s in shardings if not s.mesh.empty)
    # A leaf that is not split over one of the axes is seen, and summed, more than once.
    copies = [
        math.prod(mesh.shape[a] for a in axes if a not in sharded_axes([s]))
        for s in shardings
    ]
    specs = [s.spec for s in shardings]
    scale_specs = [None if x is None else jax.typeof(x).sharding.spec for x in scales]
    return jax.shard_map(
        lambda grads, scales: lax.psum(
            _local_gramian(grads, scales, copies, groups), axes
        ),
        mesh=mesh,
        in_specs=(specs, scale_specs),
        out_specs=PartitionSpec(None, None, None),
    )(leaves, scales)


def combine(
    grads: Any,
    coefficients: jax.Array,
    groups: Groups | None = None,
    dtype: Any = None,
) -> Any:
    """`sum_s c_s g_s`, leaf by leaf, accumulated in float32.

    A slot with coefficient 0 is left out, not multiplied: non-finite gradients of
    masked slots do not reach the result.

    Args:
      grads: pytree of arrays `[S, ...]`.
      coefficients: `[S]`, or `[G, S]` with one row per group of parameters.
      groups: what the rows belong to; None: all parameters are one group.
      dtype: of the result; None: that of the leaves.

    Returns:
      A pytree of arrays `[...]`. On a mesh the sharding is
      that of `spread_slots` without the slot axis; reshard it to the parameters'.

    Raises:
      ValueError: if the number of coefficients is not the number of slots.
    """
    num_slots = _num_slots(grads)
    groups = groups or one_group(grads)
    coefficients_GS = jnp.atleast_2d(coefficients).astype(jnp.float32)
    expected = (len(groups.names), num_slots)
    if coefficients_GS.shape != expected:
        raise ValueError(
            f"coefficients have shape {coefficients.shape}, the gradients hold "
            f"{num_slots} slots in {expected[0]} groups: pass one coefficient per slot "
            "and group."
        )
    leaves, tree = jax.tree.flatten(spread_slots(grads, groups))
    per_leaf = groups.rows_of_leaves(coefficients_GS)

    def weigh(leaves: list) -> list:
        pairs = zip(leaves, per_leaf, strict=True)
        return [weigh_leaf(g, c).astype(dtype or g.dtype) for g, c in pairs]

    def weigh_the_kept(leaves: list) -> list:
        return weigh([blank(g, left_out_S) for g in leaves])

    # Blanking costs a pass over all gradients, and nearly every step keeps all slots.
    left_out_S = jnp.all(coefficients_GS == 0, axis=0)
    combined = lax.cond(jnp.any(left_out_S), weigh_the_kept, weigh, leaves)
    return tree.unflatten(combined)


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


def _local_gramian(
    leaves: list, scales: list, copies: list[int], groups: Groups
) -> jax.Array:
    """Gramians of the groups, `[G, S, S]`, from what this device holds."""
    parts = []
    for leaf, scale, number, split in zip(
        leaves, scales, copies, groups.layers, strict=True
    ):
        gram = leaf_gramian(leaf, scale, per_layer=split > 0)
        parts.append(gram / number)
    return groups.sum_leaves(parts)


def leaf_gramian(
    leaf_S: jax.Array, scale: jax.Array | None = None, per_layer: bool = False
) -> jax.Array:
    """Gramian `[S, S]` of one leaf `[S, ...]`, or `[N, S, S]` of a stack `[S, N, ...]`.

    Chunk by chunk, without reshaping it.
    """
    if not per_layer:
        return _matrix_gramian(leaf_S, scale)

    def one_layer(i: jax.Array) -> jax.Array:
        layer_S = lax.dynamic_index_in_dim(leaf_S, i, 1, keepdims=False)
        here = None if scale is None else lax.dynamic_index_in_dim(scale, i, 0, False)
        return _matrix_gramian(layer_S, here)

    return lax.map(one_layer, jnp.arange(leaf_S.shape[1]))


def _matrix_gramian(leaf_S: jax.Array, scale: jax.Array | None) -> jax.Array:
    if AxisType.Auto in jax.typeof(leaf_S).sharding.mesh.axis_types:
        return _dot(leaf_S, scale)  # the partitioner cannot slice a split axis in place
    if leaf_S.ndim == 1:
        leaf_S = leaf_S[:, None]
        scale = None if scale is None else scale[None]
    axis, size = _chunks(leaf_S.shape)
    lead = leaf_S.shape[1:axis]
    whole, rest = divmod(leaf_S.shape[axis], size)
    if math.prod(lead) * whole <= 1 and not rest:
        return _dot(leaf_S, scale)
    sizes = (leaf_S.shape[0], *(1 for _ in lead), size, *leaf_S.shape[axis + 1 :])

    def add_chunk(i, total):
        *outer, inner = jnp.unravel_index(i, (*lead, whole))
        starts = [0, *outer, inner * size] + [0] * (leaf_S.ndim - axis - 1)
        chunk = lax.dynamic_slice(leaf_S, starts, sizes)
        here = (
            None if scale is None else lax.dynamic_slice(scale, starts[1:], sizes[1:])
        )
        gram_SS = _dot(chunk, here)
        return add_exactly(total, (gram_SS, jnp.zeros_like(gram_SS)))

    # The remainder comes first: it also gives the loop's carry the right type.
    done = whole * size
    tail = lax.slice_in_dim(leaf_S, done, done + rest, axis=axis)
    tail_scale = (
        None
        if scale is None
        else lax.slice_in_dim(scale, done, done + rest, axis=axis - 1)
    )
    first_SS = _dot(tail, tail_scale)
    start = (first_SS, jnp.zeros_like(first_SS))
    gram_SS, lost_SS = lax.fori_loop(0, math.prod(lead) * whole, add_chunk, start)
    # Of an infinite sum nothing is lost: it stays infinite instead of becoming nan.
    return gram_SS + jnp.where(jnp.isfinite(lost_SS), lost_SS, 0.0)


def _chunks(shape: tuple[int, ...]) -> tuple[int, int]:
    """The axis to cut, and how long a piece of it holds about CHUNK elements."""
    axis = 1
    while axis < len(shape) - 1 and math.prod(shape[axis + 1 :]) > CHUNK:
        axis += 1
    fitting = CHUNK // max(1, math.prod(shape[axis + 1 :]))
    return axis, max(1, min(fitting, shape[axis]))


def _dot(leaf_S: jax.Array, scale: jax.Array | None) -> jax.Array:
    leaf_S = leaf_S.astype(jnp.float32)
    scaled_S = leaf_S if scale is None else leaf_S * scale
    if AxisType.Auto in jax.typeof(leaf_S).sharding.mesh.axis_types:
        rest = range(2, leaf_S.ndim + 1)
        return _einsum(scaled_S, [0, *rest], leaf_S, [1, *rest], [0, 1])
    one_SN, other_SN = (x.reshape(len(x), -1) for x in (scaled_S, leaf_S))
    done = one_SN.shape[1] // BLOCK * BLOCK
    one_SNB, other_SNB = (
        x[:, :done].reshape(len(x), -1, BLOCK) for x in (one_SN, other_SN)
    )
    blocks_NSS = _einsum(one_SNB, [0, 2, 3], other_SNB, [1, 2, 3], [2, 0, 1])
    rest_SS = _einsum(one_SN[:, done:], [0, 2], other_SN[:, done:], [1, 2], [0, 1])
    return jnp.sum(blocks_NSS, axis=0) + rest_SS


def _einsum(*operands: Any) -> jax.Array:
    return jnp.einsum(
        *operands,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def weigh_leaf(leaf_S: jax.Array, coefficients_S: jax.Array) -> jax.Array:
    """`sum_s c_s g_s` of a leaf, float32; `[S, N]` coefficients weigh its N layers."""
    # A dot: on CPU XLA sums over a leading axis thirty times slower.
    rest = list(range(1, leaf_S.ndim))
    return jnp.einsum(
        coefficients_S,
        [0, 1][: coefficients_S.ndim],
        leaf_S,
        [0, *rest],
        rest,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def blank(leaf_S: jax.Array, left_out_S: jax.Array) -> jax.Array:
    """Zero gradients for the slots that are left out."""
    left_out_S = left_out_S.reshape(-1, *[1] * (leaf_S.ndim - 1))
    return jnp.where(left_out_S, jnp.zeros((), leaf_S.dtype), leaf_S)
