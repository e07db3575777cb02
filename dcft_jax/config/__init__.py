"""A config: checked before any work starts, and with a stable identity."""

from dcft_jax.config.identity import (
    config_hash,
    content_hash,
    difference,
    flatten,
    from_plain,
    to_plain,
)
from dcft_jax.config.require import require
from dcft_jax.config.validate import validate

__all__ = [
    "config_hash",
    "content_hash",
    "difference",
    "flatten",
    "from_plain",
    "require",
    "to_plain",
    "validate",
]
