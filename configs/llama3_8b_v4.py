"""Llama 3.1 8B with LoRA on three abilities, for 16 chips of TPU v4 (v4-32).

    python -m dcft_jax.main --config configs/llama3_8b_v4.py --workdir /mnt/runs/one

The data are those of configs/tpu_v4.py. Compiled for v4, not run on it; docs/scale.md
has what it needs.
"""

from ml_collections import ConfigDict

from configs import tpu_v4


def get_config() -> ConfigDict:
    config = tpu_v4.get_config()
    config.lora.update(rank=16, alpha=32.0)
    # 8 slots x 4 rows x 4096 tokens = 131k tokens a step.
    config.data.update(seq_len=4096, num_slots=8, rows_per_slot=4)
    config.model.param_dtype = "bfloat16"
    config.optimizer.learning_rate = 2e-4
    # The frozen model over data and model: 4 GB of each chip.
    config.mesh.update(ability=4, data=2, model=2)
    return config
