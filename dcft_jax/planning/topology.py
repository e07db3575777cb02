"""Devices to compile for, without having them."""

import re
from typing import Any, NamedTuple

import jax

from dcft_jax.planning.chips import CHIPS

EXAMPLE = "v4:4x4x4 (64 chips), v5e:2x4 (8), 2*v4:2x2x4 (2 slices of 16)"
_FORM = re.compile(r"(?:([1-9]\d*)\*)?(\w+):([1-9]\d*(?:x[1-9]\d*)*)")


class Topology(NamedTuple):
    kind: str  # of CHIPS
    shape: tuple[int, ...]  # chips along the axes of a slice
    num_slices: int


def parse_topology(name: str) -> Topology:
    """`v4:2x2x4` or `2*v4:2x2x4` -> kind, shape of a slice and number of slices.

    v4 and v5p have three axes, v5e and v6e two.

    Raises:
      ValueError: if it is not of this form.
    """
    found = _FORM.fullmatch(name)
    if found is None or found.group(2) not in CHIPS:
        raise ValueError(
            f"--topology {name}: must be one of {', '.join(CHIPS)}, a colon and the "
            f"chips along each axis, with the number of slices and a * before it if "
            f"there are several, such as {EXAMPLE}"
        )
    slices, kind, sizes = found.groups()
    shape = tuple(int(size) for size in sizes.split("x"))
    wanted = CHIPS[kind].dimensions
    if len(shape) != wanted:
        raise ValueError(
            f"--topology {name}: {kind} has {wanted} axes, not {len(shape)}; such as "
            f"{EXAMPLE}"
        )
    return Topology(kind, shape, int(slices or 1))


def topology_devices(name: str) -> list[Any]:
    """Devices that programs can be compiled for, and nothing else.

    Raises:
      ValueError: libtpu is not installed, or has no such topology.
    """
    from jax.experimental import topologies

    kind, shape, num_slices = parse_topology(name)
    sizes = "x".join(map(str, shape))
    options: dict[str, Any] = {"num_slices": num_slices}
    if kind == "v4":
        # The two cores of a chip as one device, as on Cloud TPU.
        options["chip_config_name"] = "megacore"
    try:
        found = topologies.get_topology_desc(f"{kind}:{sizes}", "tpu", **options)
    except (jax.errors.JaxRuntimeError, ImportError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"--topology {name}: {reason}. Compiling for TPUs needs libtpu "
            "(pip install dcft-jax[tpu]; no TPU), and slices of whole hosts of 2x2 "
            "chips"
        ) from error
    return list(found.devices)
