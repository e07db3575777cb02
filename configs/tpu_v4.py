"""Llama 3.1 8B, all parameters, on three abilities, for 64 chips of TPU v4 (v4-128).

    python -m dcft_jax.main --config configs/tpu_v4.py --workdir /mnt/runs/one

Put `maths.jsonl`, `code.jsonl` and `general.jsonl` into `data/` first (docs/data.md
says which shapes are read), or point the sources elsewhere:
`--config.abilities.maths.sources.rows.path=...`. Compiled for v4, not run on it;
docs/scale.md has what it needs.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.abilities.update(base.from_jsonl("maths", "code", "general"))
    config.pretrained.update(
        path="hf:meta-llama/Llama-3.1-8B-Instruct",
        settings="configs/settings/llama3_1_8b.json",
    )
    config.run.update(num_steps=2000, eval_every=100, save_every=200, log_every=10)
    # 8 slots x 16 rows x 2048 tokens = 262k tokens a step.
    config.data.update(seq_len=2048, num_slots=8, rows_per_slot=16)
    config.model.update(remat="full", logits_chunk=256)
    config.optimizer.update(learning_rate=1e-5, warmup_steps=100)
    # Each ability's gradients on their own part of the mesh; state over the other 16.
    config.mesh.update(ability=4, data=4, model=4)
    return config
