"""Which parameters are resolved together: all, those of a block, or each matrix.

A group has a Gramian and coefficients of its own. Resolving per block or per matrix
asks for no conflict anywhere instead of no conflict in sum, which is stronger, and
can stall more (PCGrad, arXiv:2001.06782, and GradVac, arXiv:2010.05874, do both).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

GRANULARITIES = ("global", "block", "matrix")


@dataclasses.dataclass(frozen=True)
class Groups:
    """G groups of the leaves of a pytree, in the order of its leaves; hashable.

    Leaf i belongs to group `start[i]`, or, if `layers[i] > 0`, its layers (the leading
    axis of a stacked leaf) belong to the groups `start[i]`, `start[i] + 1`, ...
    """

    names: tuple[str, ...]
    start: tuple[int, ...]
    layers: tuple[int, ...]

    def sum_leaves(self, parts: Sequence[jax.Array]) -> jax.Array:
        """`[G, ...]` from one `[...]` (`[N, ...]` where split into layers) per leaf."""
        if len(self.names) == 1 and not any(self.layers):
            return jnp.sum(jnp.stack(parts), axis=0)[None]
        rows = [
            part if n else part[None]
            for part, n in zip(parts, self.layers, strict=True)
        ]
        total = jnp.zeros((len(self.names), *rows[0].shape[1:]), rows[0].dtype)
        for row, start in zip(rows, self.start, strict=True):
            total = total.at[start : start + len(row)].add(row)
        return total

    def rows_of_leaves(self, rows_GS: jax.Array) -> list[jax.Array]:
        """For each leaf its `[S]` of `[G, S]`; `[S, N]` where split into layers."""
        return [
            rows_GS[start : start + n].T if n else rows_GS[start]
            for start, n in zip(self.start, self.layers, strict=True)
        ]


def one_group(tree: Any) -> Groups:
    """All parameters together: what `granularity="global"` means."""
    number = len(jax.tree.leaves(tree))
    return Groups(("all",), (0,) * number, (0,) * number)


def make_groups(
    params: Any, granularity: str = "global", stacked: Sequence[str] = ("layers",)
) -> Groups:
    """The groups of a pytree of parameters.

    Args:
      params: arrays or their shapes, without a slot axis.
      granularity: "global": one group; "block": one for each layer of a stack and one
        for each other top-level entry; "matrix": one for each leaf, layer by layer.
      stacked: top-level entries whose leaves carry a leading layer axis.

    Raises:
      ValueError: for an unknown granularity.
    """
    if granularity not in GRANULARITIES:
        raise ValueError(
            f"granularity is {granularity!r}, expected one of {GRANULARITIES}."
        )
    if granularity == "global":
        return one_group(params)
    names: list[str] = []
    first: dict[str, int] = {}
    start, layers = [], []
    for path, leaf in jax.tree.leaves_with_path(params):
        words = [_word(key) for key in path]
        number = leaf.shape[0] if words[:1] and words[0] in stacked else 0
        name = ".".join(words[:1] if granularity == "block" else words) or "all"
        if name not in first:
            first[name] = len(names)
            names += [f"{name}.{i}" for i in range(number)] if number else [name]
        start.append(first[name])
        layers.append(number)
    return Groups(tuple(names), tuple(start), tuple(layers))


def _word(key: Any) -> str:
    return jax.tree_util.keystr((key,), simple=True)
