"""A config file for a config that was stored as JSON.

python -m dcft_jax.main --config experiments/stored_config.py:RUN/config.json
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict


def get_config(path: str) -> ConfigDict:
    """The config whose plain form (`dcft_jax.config.to_plain`) is in the file."""
    return from_plain(json.loads(Path(path).read_text()))


def from_plain(plain: Mapping[str, Any]) -> ConfigDict:
    """The inverse of `dcft_jax.config.to_plain`.

    It keeps the order of the abilities, which is part of a run; copying a ConfigDict
    does not.
    """
    config = ConfigDict(sort_keys=False)
    for name, value in plain.items():
        config[name] = from_plain(value) if isinstance(value, Mapping) else value
    return config
