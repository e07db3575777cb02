"""The run of configs/tpu_v4.py on two slices of 64 chips, with twice the rows.

    python -m dcft_jax.main --config configs/tpu_v4_multislice.py \
        --workdir /mnt/runs/one

Every slice holds the whole state, split over its own chips, and half of the rows of
every slot; gradients meet over the network between them. Compiled for v4, not run on
it; docs/scale.md has what it needs.
"""

from ml_collections import ConfigDict

from configs import tpu_v4


def get_config() -> ConfigDict:
    config = tpu_v4.get_config()
    config.data.rows_per_slot = 32
    config.mesh.slice = 2
    return config
