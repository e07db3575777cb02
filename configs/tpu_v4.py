"""A 1.0 B decoder on three abilities of your own, for 16 chips of TPU v4 (v4-32).

    python -m dcft_jax.main --config configs/tpu_v4.py --workdir gs://bucket/run

Put `maths.jsonl`, `code.jsonl` and `general.jsonl` into `data/` first (docs/data.md
says which shapes are read), or point the sources elsewhere:
`--config.abilities.maths.sources.rows.path=...`. Compiled for v4, not run on it.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.abilities.update(base.from_jsonl("maths", "code", "general"))
    config.run.update(num_steps=10_000, eval_every=250, save_every=500, log_every=10)
    # 8 slots x 16 rows x 2048 tokens = 262k tokens a step.
    config.data.update(seq_len=2048, num_slots=8, rows_per_slot=16)
    config.tokenizer.vocab_size = 32_000
    config.model.update(
        num_layers=16,
        width=2048,
        hidden=8192,
        num_heads=32,
        num_kv_heads=8,
        head_dim=64,
        rope_theta=500_000.0,
        remat="full",
    )
    config.optimizer.update(learning_rate=3e-4, warmup_steps=500, weight_decay=0.1)
    # Each ability's gradients on their own slice of the mesh.
    config.mesh.update(ability=4, data=2, model=2)
    return config
