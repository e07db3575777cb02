"""One tensor of a checkpoint and one leaf of the parameters: the same numbers.

An equation names the axes of both, as in "HC,D->D,H,C": a comma ends an axis, several
letters make one axis, the first of them the slowest. D width, F hidden, H query heads,
G key/value heads, C channels of a head, V vocabulary; C is also R pairs of P = 2.
"""

import math
from collections.abc import Mapping

import numpy as np

from dcft_jax.models.config import ModelConfig

Sizes = Mapping[str, int]


def axis_sizes(config: ModelConfig) -> dict[str, int]:
    return dict(
        V=config.vocab_size,
        D=config.width,
        F=config.hidden,
        H=config.num_heads,
        G=config.num_kv_heads,
        C=config.head_dim,
        P=2,
        R=config.head_dim // 2,
    )


def file_shape(equation: str, sizes: Sizes) -> tuple[int, ...]:
    """Of the tensor, the left side."""
    return _shape(_sides(equation)[0], sizes)


def leaf_shape(equation: str, sizes: Sizes) -> tuple[int, ...]:
    """Of the leaf without its layer axis, the right side."""
    return _shape(_sides(equation)[1], sizes)


def file_index(
    equation: str, sizes: Sizes, leaf_index: tuple[slice, ...]
) -> tuple[slice, ...]:
    """The part of the tensor that holds the part `leaf_index` of the leaf.

    Raises:
      ValueError: if that is no block of the tensor; the channels of a head are never
        split.
    """
    ranges = _ranges(equation, sizes, leaf_index)
    slices = []
    for group in _sides(equation)[0]:
        first, *inner = group
        for letter in inner:
            _require_whole(equation, sizes, letter, ranges[letter])
        step = math.prod(sizes[letter] for letter in inner)
        start, stop = ranges[first]
        slices.append(slice(start * step, stop * step))
    return tuple(slices)


def to_leaf(
    equation: str, sizes: Sizes, part: np.ndarray, leaf_index: tuple[slice, ...]
) -> np.ndarray:
    """What `file_index` selected, as the leaf holds it."""
    ranges = _ranges(equation, sizes, leaf_index)
    lengths = {letter: stop - start for letter, (start, stop) in ranges.items()}
    return _rearrange(part, *_sides(equation), lengths)


def to_file(equation: str, sizes: Sizes, leaf: np.ndarray) -> np.ndarray:
    """A whole leaf without its layer axis as the tensor; inverts `to_leaf`."""
    left, right = _sides(equation)
    return _rearrange(leaf, right, left, sizes)


def _sides(equation: str) -> tuple[list[str], list[str]]:
    left, right = equation.split("->")
    return left.split(","), right.split(",")


def _shape(groups: list[str], sizes: Sizes) -> tuple[int, ...]:
    return tuple(math.prod(sizes[letter] for letter in group) for group in groups)


def _rearrange(x: np.ndarray, old: list[str], new: list[str], sizes: Sizes):
    letters, wanted = "".join(old), "".join(new)
    x = x.reshape([sizes[letter] for letter in letters])
    return x.transpose([letters.index(letter) for letter in wanted]).reshape(
        _shape(new, sizes)
    )


def _ranges(
    equation: str, sizes: Sizes, leaf_index: tuple[slice, ...]
) -> dict[str, tuple[int, int]]:
    """First and last + 1 of every letter that is wanted."""
    ranges = {}
    for group, part in zip(_sides(equation)[1], leaf_index, strict=True):
        size = math.prod(sizes[letter] for letter in group)
        start, stop, _ = part.indices(size)
        if len(group) == 1:
            ranges[group] = (start, stop)
            continue
        _require_whole(equation, {group: size}, group, (start, stop))
        ranges.update({letter: (0, sizes[letter]) for letter in group})
    return ranges


def _require_whole(equation: str, sizes: Sizes, name: str, wanted: tuple[int, int]):
    if wanted != (0, sizes[name]):
        raise ValueError(
            f"the axis {name!r} of {equation!r} cannot be split over devices: "
            f"{wanted[0]}:{wanted[1]} of {sizes[name]} was asked for"
        )
