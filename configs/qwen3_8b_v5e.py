"""Qwen3 8B with LoRA on three abilities, for 16 chips of TPU v5e (v5e-16).

    python -m dcft_jax.main --config configs/qwen3_8b_v5e.py --workdir gs://bucket/run

Put `maths.jsonl`, `code.jsonl` and `general.jsonl` into `data/` first (docs/data.md
says which shapes are read), or point the sources elsewhere:
`--config.abilities.maths.sources.rows.path=...`. Traced on its mesh, not run on it.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    for name in ("maths", "code", "general"):
        config.abilities[name] = base.ability(
            {"rows": dict(kind="jsonl", path=f"data/{name}.jsonl")},
            mix_val=512,
            test=1024,
        )
    config.pretrained.path = "hf:Qwen/Qwen3-8B"
    config.lora.update(rank=16, alpha=32.0)
    config.run.update(num_steps=2000, eval_every=100, save_every=200, log_every=10)
    # 8 slots x 4 rows x 2048 tokens = 65k tokens a step.
    config.data.update(seq_len=2048, num_slots=8, rows_per_slot=4)
    config.model.update(param_dtype="bfloat16", remat="full", logits_chunk=256)
    config.optimizer.update(learning_rate=2e-4, warmup_steps=100, clip_norm=1.0)
    # The frozen model over data and model: 2 GB of each chip.
    config.mesh.update(ability=2, data=2, model=4)
    return config
