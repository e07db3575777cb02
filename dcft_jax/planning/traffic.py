"""Bytes that the collectives of a compiled program move, by kind and mesh axis."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from dcft_jax.planning import hlo

REDUCING = ("all-reduce", "reduce-scatter")
COLLECTIVES = (*REDUCING, "all-gather", "all-to-all", "collective-permute")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_BITS = {"pred": 8}
_IOTA = r"\[([\d,]+)\](?:<=\[([\d,]+)\])?(?:T\(([\d,]+)\))?"
_LISTED = re.compile(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}")
_TILED = re.compile(rf"replica_groups={_IOTA}")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\]([^{]*)\{([^}]*)\}")
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")
# Between slices the hosts carry what a program sends and receives; it says as what, and
# among which: `{1,2}x{0:3}` are the chips 0 to 3 of the slices 1 and 2 (from 1).
_TRANSFER = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_TARGET = re.compile(r'_xla_megascale_target="\{([\d,:]*)\}x\{([\d,:]*)\}"')
# A reduction of which every device keeps its part, as compilers for TPU write it.
_FUSED = "all-reduce-scatter"


class Collective(NamedTuple):
    """One collective of a device, as often as it runs in a step."""

    kind: str  # of COLLECTIVES
    num_bytes: int  # that one run of it puts out on one device
    runs: int
    groups: tuple[tuple[int, ...], ...]  # places in `mesh.devices.flat`; (): all
    certain: bool  # False: in a loop of unknown length, counted once

    @property
    def total(self) -> int:
        return self.num_bytes * self.runs


def collectives(text: str) -> list[Collective]:
    """All collectives of the text of a compiled program."""
    program, entry = hlo.parse(text)
    times, unknown = hlo.runs(program, entry)
    found = []
    for name, count in times.items():
        for line in program.get(name, ()):
            kind = line.opcode.removesuffix("-start")
            if kind == "recv" and (between := _between_slices(line, count)):
                found.append(between._replace(certain=name not in unknown))
            if kind not in COLLECTIVES:
                continue
            result = _results(line.result, kind, line.opcode)
            size = sum(map(_bytes, _ARRAY.findall(result)))
            groups = _groups(line.rest)
            if kind == "all-reduce" and name.startswith(_FUSED):
                kind = "reduce-scatter"
                size //= max(len(groups[0]) if groups else 1, 1)
            found.append(Collective(kind, size, count, groups, name not in unknown))
    return found


def bytes_by_kind(text: str) -> dict[str, int]:
    """Bytes that each kind of collective puts out on one device in one run."""
    totals: dict[str, int] = {kind: 0 for kind in COLLECTIVES}
    for one in collectives(text):
        totals[one.kind] += one.total
    return totals


def axes_of(groups: Sequence[Sequence[int]], mesh: Mesh) -> str:
    """The mesh axes that a collective goes over, such as "data" or "ability+data"."""
    members = [groups[0]] if groups and len(groups[0]) > 1 else groups[:1]
    places = members[0] if members else range(mesh.size)
    coordinates = np.array(np.unravel_index(list(places), mesh.devices.shape))
    varied = (coordinates != coordinates[:, :1]).any(axis=1)
    names = [n for n, moves in zip(mesh.axis_names, varied, strict=True) if moves]
    return "+".join(names) or "none"


def crosses_slices(groups: Sequence[Sequence[int]], mesh: Mesh) -> bool:
    """Do its devices lie in several slices?"""
    slices = [getattr(d, "slice_index", None) or 0 for d in mesh.devices.flat]
    groups = groups or (tuple(range(mesh.size)),)
    return any(len({slices[i] for i in group}) > 1 for group in groups)


def _results(result: str, kind: str, opcode: str) -> str:
    """What a collective puts out; those that only start repeat their operands."""
    if opcode == kind or kind == "all-reduce" or not result.startswith("("):
        return result
    parts, depth, start = [], 0, 1
    for i, char in enumerate(result):
        depth += (char in "([{") - (char in ")]}")
        if (char == "," and depth == 1) or (char == ")" and depth == 0):
            parts.append(result[start:i])
            start = i + 1
    return parts[1]


def _between_slices(line: hlo.Instruction, count: int) -> Collective | None:
    """The collective that a host carries to other slices; None: it is none."""
    transfer, target = _TRANSFER.search(line.rest), _TARGET.search(line.rest)
    if not transfer or not target:
        return None
    kind = transfer.group(1).lower().replace("_", "-")
    slices, chips = map(_ranges, target.groups())
    groups = tuple(tuple((s - 1) * len(chips) + c for s in slices) for c in chips)
    return Collective(
        kind if kind in COLLECTIVES else "collective-permute",
        _bytes(_ARRAY.findall(line.result)[0]),
        count,
        groups,
        True,
    )


def _ranges(text: str) -> list[int]:
    """`1,4:6` -> 1, 4, 5, 6."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition(":")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _bytes(array: tuple[str, str]) -> int:
    dtype, shape = array
    digits = re.search(r"\d+", dtype)
    bits = _BITS.get(dtype) or (int(digits.group()) if digits else 0)
    return math.prod(int(n) for n in shape.split(",") if n) * bits // 8


def _groups(attributes: str) -> tuple[tuple[int, ...], ...]:
    """The groups of devices in any of the ways they are written."""
    if found := _PAIRS.search(attributes):
        pairs = re.findall(r"\{(\d+),(\d+)\}", found.group(1))
        return tuple((int(a), int(b)) for a, b in pairs if a != b)
    if found := _LISTED.search(attributes):
        listed = re.findall(r"\{([\d,]+)\}", found.group(1))
        return tuple(tuple(_numbers(group)) for group in listed)
    if found := _MESH.search(attributes):
        return _mesh_groups(*found.groups())
    if found := _TILED.search(attributes):
        shape, tiles, order = found.groups()
        return _as_groups(_iota(tiles or shape, order).reshape(_numbers(shape)))
    return ()


def _mesh_groups(axes: str, devices: str, chosen: str) -> tuple[tuple[int, ...], ...]:
    """`mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}`; `'b':(2)2` is a part of it.

    A part `:(m)n` is the n in the middle when an axis is written as m x n x rest.
    """
    sizes = {n: int(size) for n, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    order = re.search(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", devices)
    count = math.prod(sizes.values())
    ids = _iota(*order.groups()) if order else np.arange(count)
    shape: list[int] = []
    grouped: list[int] = []
    parts = {
        name: (int(m or 1), int(n or sizes[name]))
        for name, m, n in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", chosen)
    }
    for name, size in sizes.items():
        if name not in parts:
            shape.append(size)
            continue
        before, inside = parts[name]
        grouped.append(len(shape) + 1)
        shape += [before, inside, size // before // inside]
    table = np.moveaxis(ids.reshape(shape), grouped, range(-len(grouped), 0))
    return _as_groups(table.reshape(-1, math.prod(shape[axis] for axis in grouped)))


def _iota(tiles: str, order: str | None) -> np.ndarray:
    """`[4,2]T(1,0)`: the numbers from 0 on, reshaped and transposed, in a row."""
    shape = _numbers(tiles)
    table = np.arange(math.prod(shape)).reshape(shape)
    return (table.transpose(_numbers(order)) if order else table).reshape(-1)


def _as_groups(table: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(i) for i in row) for row in table)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]
