"""What one chip of each kind of TPU can do, as its maker says.

Peak bf16 and HBM: https://cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e. ICI of one
link, one way, and DCN (25 GB/s of a host, shared by its 4 or 8 chips):
https://jax-ml.github.io/scaling-book/tpus. HBM is given there in GB and taken as GiB
here; the compiler keeps a little of it to itself, and its refusal decides.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    name: str
    bf16_flops: float  # FLOP/s
    hbm_gib: float
    hbm_bandwidth: float  # byte/s
    link_bandwidth: float  # byte/s of one ICI link, one way
    dcn_bandwidth: float  # byte/s of a chip, between slices
    dimensions: int  # of the torus
    device_kind: str  # as JAX names it


CHIPS = {
    "v4": Chip("v4", 275e12, 32, 1.2e12, 4.5e10, 25e9 / 4, 3, "TPU v4"),
    "v5e": Chip("v5e", 197e12, 16, 0.819e12, 5e10, 25e9 / 8, 2, "TPU v5 lite"),
    "v5p": Chip("v5p", 459e12, 95, 2.765e12, 1e11, 25e9 / 4, 3, "TPU v5"),
    "v6e": Chip("v6e", 918e12, 32, 1.638e12, 1e11, 25e9 / 8, 2, "TPU v6 lite"),
}
# Other names that JAX has used for the same kinds.
_ALIASES = {"TPU v5e": "v5e", "TPU v5p": "v5p", "TPU v6e": "v6e"}


def chip_of(device_kind: str) -> Chip | None:
    """The chip that JAX calls `device_kind`; None if its peaks are not known here."""
    named = {chip.device_kind: chip for chip in CHIPS.values()}
    return named.get(device_kind) or CHIPS.get(_ALIASES.get(device_kind, ""))
