"""What the project asks of a chat format: a conversation as tokens."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

Messages = Sequence[tuple[str, str]]  # (role, content) pairs
Encoded = tuple[np.ndarray, np.ndarray]  # tokens_L int32, loss_mask_L bool


class ChatFormat(Protocol):
    """Conversations to tokens.

    Trained are, in every assistant message, the tokens that the model itself has to
    write after its prompt: the reply and the token that ends its turn. Never trained
    are the beginning of the sequence, role headers and whatever else a prompt holds.

    The tokens before a reply are exactly those of `encode_prompt` for the messages
    before it, unless the format rewrites history.

    Attributes:
        end_id: the token that ends an assistant turn; it is trained.
        stop_ids: all tokens that end generation; `end_id` is the first.
        content_hash: equal for formats that lay out all conversations alike.
    """

    @property
    def end_id(self) -> int: ...
    @property
    def stop_ids(self) -> tuple[int, ...]: ...
    @property
    def content_hash(self) -> str: ...

    def encode(self, messages: Messages) -> Encoded:
        """`tokens_L` and `loss_mask_L` of a conversation that ends with a reply."""
        ...

    def encode_batch(self, conversations: Sequence[Messages]) -> list[Encoded]:
        """Same as `encode` on each, with all texts encoded in one call."""
        ...

    def encode_prompt(self, messages: Messages) -> np.ndarray:
        """`tokens_L` after which the model writes the next assistant message."""
        ...
