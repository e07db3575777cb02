"""Llama 3.1 70B, all parameters, on three abilities, for 256 chips of v5p (v5p-512).

As configs/tpu_v4.py, with another model and mesh. Compiled for v5p, not run on it;
docs/scale.md has what it needs.
"""

from ml_collections import ConfigDict

from configs import tpu_v4


def get_config() -> ConfigDict:
    config = tpu_v4.get_config()
    config.pretrained.update(
        path="hf:meta-llama/Llama-3.1-70B-Instruct",
        settings="configs/settings/llama3_1_70b.json",
    )
    # 8 slots x 32 rows x 2048 tokens = 524k tokens a step.
    config.data.rows_per_slot = 32
    config.mesh.update(ability=4, data=8, model=8)
    return config
