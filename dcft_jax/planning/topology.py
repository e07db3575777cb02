"""Devices to compile for, without having them."""

import re
from typing import Any, NamedTuple

import jax

from dcft_jax.planning.chips import CHIPS
from dcft_jax.sharding import AXES

SLICE = "slice"  # the mesh axis that runs need to go over several slices
EXAMPLE = "v4:4x4x4 (64 chips), v5e:2x4 (8)"


class Topology(NamedTuple):
    kind: str  # of CHIPS
    shape: tuple[int, ...]  # chips along the axes of a slice
    num_slices: int


def parse_topology(name: str) -> Topology:
    """`v4:2x2x4` -> kind, shape and slices.

    v4 and v5p have three axes, v5e and v6e two; one more number is that of slices.

    Raises:
      ValueError: if it is not of this form.
    """
    kind, _, sizes = name.partition(":")
    if kind not in CHIPS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes):
        raise ValueError(
            f"--topology {name}: must be one of {', '.join(CHIPS)}, a colon and the "
            f"chips along each axis, such as {EXAMPLE}"
        )
    shape = tuple(int(size) for size in sizes.split("x"))
    wanted = CHIPS[kind].dimensions
    if len(shape) not in (wanted, wanted + 1):
        raise ValueError(
            f"--topology {name}: {kind} has {wanted} axes (and one more number for "
            f"several slices), not {len(shape)}; such as {EXAMPLE}"
        )
    return Topology(kind, shape[:wanted], shape[wanted] if shape[wanted:] else 1)


def topology_devices(name: str) -> list[Any]:
    """Devices that programs can be compiled for, and nothing else.

    Raises:
      ValueError: libtpu is not installed, or has no such topology.
    """
    from jax.experimental import topologies

    kind, shape, num_slices = parse_topology(name)
    if num_slices > 1 and SLICE not in AXES:
        raise ValueError(
            f"--topology {name}: has {num_slices} slices, and config.mesh has no axis "
            f"over slices, only {', '.join(AXES)}; plan for one slice"
        )
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
