"""Other people's checkpoints in, ours out. Read load.py and save.py first."""

from dcft_jax.models.pretrained.load import (
    Pretrained,
    load_params,
    load_pretrained,
    read_config,
)
from dcft_jax.models.pretrained.placing import abstract_params
from dcft_jax.models.pretrained.save import save_pretrained

__all__ = [
    "Pretrained",
    "abstract_params",
    "load_params",
    "load_pretrained",
    "read_config",
    "save_pretrained",
]
