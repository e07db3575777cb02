"""A config file for a config that was stored as JSON.

python -m dcft_jax.main --config experiments/stored_config.py:RUN/config.json
"""

import json
from pathlib import Path

from ml_collections import ConfigDict

from dcft_jax.config import from_plain


def get_config(path: str) -> ConfigDict:
    """The config whose plain form (`dcft_jax.config.to_plain`) is in the file."""
    return from_plain(json.loads(Path(path).read_text()))
