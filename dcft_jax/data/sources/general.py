"""Sources of general alignment: conversations, and instructions with one reply."""

from dcft_jax.data.sources.chatterbot import chatterbot
from dcft_jax.data.sources.instructions import instructions

__all__ = ["chatterbot", "instructions"]
