"""Fine-tunes dcft-tiny on three small abilities, on a CPU in minutes.

dcft-tiny is the base model of this project, 3.4 M parameters; models/dcft-tiny has its
weights and its card.
"""

from ml_collections import ConfigDict

from configs import from_scratch


def get_config(only: str = "") -> ConfigDict:
    """All three abilities, or one: `--config configs/quickstart.py:maths`."""
    config = from_scratch.get_config(only)
    config.pretrained.path = "models/dcft-tiny"
    config.run.update(num_steps=300, eval_every=30, save_every=100, log_every=5)
    config.evaluation.generate_every = 5
    config.optimizer.update(learning_rate=2e-3, warmup_steps=20)
    return config
