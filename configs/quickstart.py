"""Three small abilities on a CPU in minutes."""

from ml_collections import ConfigDict

from configs import from_scratch


def get_config(only: str = "") -> ConfigDict:
    """All three abilities, or one: `--config configs/quickstart.py:maths`."""
    return from_scratch.get_config(only)
