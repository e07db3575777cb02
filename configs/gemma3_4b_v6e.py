"""Gemma 3 4B with LoRA on three abilities, for 8 chips of TPU v6e (v6e-8).

As configs/llama3_8b_v4.py, with another model and mesh. Compiled for v6e, never
run on it.
"""

from ml_collections import ConfigDict

from configs import llama3_8b_v4


def get_config() -> ConfigDict:
    config = llama3_8b_v4.get_config()
    config.pretrained.update(
        path="hf:google/gemma-3-4b-it", settings="configs/settings/gemma3_4b.json"
    )
    # 8 slots x 4 rows x 2048 tokens = 65k tokens a step.
    config.data.seq_len = 2048
    # The frozen model over data and model: 2 GB of each chip.
    config.mesh.update(ability=2, data=2, model=2)
    return config
