"""Llama 3.1 8B on rows of 32,768 tokens, for 64 chips of TPU v4 (v4-128).

As configs/tpu_v4.py, with fewer and longer rows. Compiled for v4, not run on it;
docs/scale.md has what it needs.
"""

from ml_collections import ConfigDict

from configs import tpu_v4


def get_config() -> ConfigDict:
    config = tpu_v4.get_config()
    # 4 slots x 4 rows x 32,768 tokens = 524k tokens a step; four chips share a row.
    config.data.update(seq_len=32_768, num_slots=4, rows_per_slot=4)
    config.mesh.update(ability=4, data=4, model=4)
    return config
