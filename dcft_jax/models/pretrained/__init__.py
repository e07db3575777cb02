"""Other people's checkpoints in, ours out. Read load.py and save.py first."""

from dcft_jax.models.pretrained.load import (
    Opened,
    Pretrained,
    config_of,
    load_params,
    load_pretrained,
    open_pretrained,
    read_config,
)
from dcft_jax.models.pretrained.opening import Settings, read_settings
from dcft_jax.models.pretrained.placing import abstract_params
from dcft_jax.models.pretrained.save import save_pretrained

__all__ = [
    "Opened",
    "Pretrained",
    "Settings",
    "abstract_params",
    "config_of",
    "load_params",
    "load_pretrained",
    "open_pretrained",
    "read_config",
    "read_settings",
    "save_pretrained",
]
