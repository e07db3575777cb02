"""Llama 3.1 8B with LoRA on three abilities, for 16 chips of TPU v4 (v4-32).

    python -m dcft_jax.main --config configs/llama3_8b_v4.py --workdir gs://bucket/run

Put `maths.jsonl`, `code.jsonl` and `general.jsonl` into `data/` first (docs/data.md
says which shapes are read), or point the sources elsewhere:
`--config.abilities.maths.sources.rows.path=...`. Traced on its mesh, not run on it.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.abilities.update(base.from_jsonl("maths", "code", "general"))
    config.pretrained.path = "hf:meta-llama/Llama-3.1-8B-Instruct"
    config.lora.update(rank=16, alpha=32.0)
    config.run.update(num_steps=2000, eval_every=100, save_every=200, log_every=10)
    # 8 slots x 4 rows x 4096 tokens = 131k tokens a step.
    config.data.update(seq_len=4096, num_slots=8, rows_per_slot=4)
    config.model.update(param_dtype="bfloat16", remat="full", logits_chunk=256)
    config.optimizer.update(learning_rate=2e-4, warmup_steps=100, clip_norm=1.0)
    # The frozen model over data and model: 4 GB of each chip.
    config.mesh.update(ability=4, data=2, model=2)
    return config
