"""Llama 3.1 8B on rows of 32,768 tokens, for 64 chips of TPU v4 (v4-128).

As configs/tpu_v4.py, with fewer and longer rows: one of one slot on each chip. Traced
on its mesh, not run on it.
"""

from ml_collections import ConfigDict

from configs import tpu_v4


def get_config() -> ConfigDict:
    config = tpu_v4.get_config()
    # 8 slots x 2 rows x 32,768 tokens = 524k tokens a step.
    config.data.update(seq_len=32_768, num_slots=8, rows_per_slot=2)
    config.mesh.update(ability=8, data=2, model=4)
    return config
