"""Qwen3 8B with LoRA on three abilities, for 8 chips of TPU v5e (v5e-8).

As configs/llama3_8b_v4.py, with another model and mesh. Compiled for v5e, never
run on it.
"""

from ml_collections import ConfigDict

from configs import llama3_8b_v4


def get_config() -> ConfigDict:
    config = llama3_8b_v4.get_config()
    config.pretrained.update(
        path="hf:Qwen/Qwen3-8B", settings="configs/settings/qwen3_8b.json"
    )
    # 4 slots x 4 rows x 2048 tokens = 33k tokens a step.
    config.data.update(seq_len=2048, num_slots=4)
    # The frozen model over data and model: 2 GB of each chip.
    config.mesh.update(ability=1, data=2, model=4)
    return config
