"""How fast a step could be, from the peaks of a chip and what the program does."""

from collections.abc import Sequence
from typing import NamedTuple

from jax.sharding import Mesh

from dcft_jax.planning.chips import Chip
from dcft_jax.planning.compiling import Memory
from dcft_jax.planning.traffic import Collective, crosses_slices

ASSUMPTIONS = (
    "matrix products run at the chip's peak bf16 rate and split evenly over the chips",
    "HBM: arguments are read once, outputs written once, temporaries both; layers that "
    "are read again for recomputation are not counted",
    "ICI: every collective goes around one ring, in both directions (two links of a "
    "chip); between slices it goes over the DCN",
    "the estimate is the slowest of the four, as if they overlapped perfectly: no run "
    "is faster; their sum is the time if nothing overlaps",
    "loading data, evaluation and saving are left out",
)


class Roofline(NamedTuple):
    """Seconds of one step."""

    compute: float
    hbm: float
    ici: float
    dcn: float

    @property
    def estimate(self) -> float:
        return max(self)

    @property
    def without_overlap(self) -> float:
        return sum(self)

    @property
    def bound_by(self) -> str:
        return max(zip(self, self._fields, strict=True))[1]


def roofline(
    chip: Chip, mesh: Mesh, flops: int, memory: Memory, moved: Sequence[Collective]
) -> Roofline:
    """`flops` are of all chips; all else is of one."""
    between = [one for one in moved if crosses_slices(one.groups, mesh)]
    inside = [one for one in moved if not crosses_slices(one.groups, mesh)]
    touched = memory.arguments + memory.outputs + 2 * memory.temporary
    return Roofline(
        compute=flops / mesh.size / chip.bf16_flops,
        hbm=touched / chip.hbm_bandwidth,
        ici=_wire(inside, mesh.size) / (2 * chip.link_bandwidth),
        dcn=_wire(between, mesh.size) / chip.dcn_bandwidth,
    )


def _wire(moved: Sequence[Collective], num_devices: int) -> float:
    return sum(wire_bytes(one, num_devices) * one.runs for one in moved)


def wire_bytes(one: Collective, num_devices: int) -> float:
    """Bytes that a device sends in one run, around a ring of n devices."""
    if one.kind == "collective-permute":
        return one.num_bytes
    n = len(one.groups[0]) if one.groups else num_devices
    result = one.num_bytes
    return {
        "all-gather": result * (n - 1) / n,
        "all-reduce": 2 * result * (n - 1) / n,
        "reduce-scatter": result * (n - 1),  # its result is one part of n
        "all-to-all": result * (n - 1) / n,
    }[one.kind]
