"""What the project asks of a tokenizer, whichever library it comes from."""

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from dcft_jax.data.chat_format import ChatFormat


class Tokenizer(Protocol):
    """Text to token ids and back.

    Control tokens are never produced from text: a user who types "<|im_end|>" gets
    ordinary tokens, so content cannot forge the end of a turn or another role. How a
    conversation becomes tokens is a matter of its own, see `chat`.

    Attributes:
        vocab_size: one more than the largest id.
        content_hash: equal for tokenizers that give the same ids to the same text.
        pad_id: fills rows; never the token that ends a turn.
        bos_id: None if the model has no such token.
        chat: how conversations become tokens. A tokenizer without a chat template
            raises ValueError here.
    """

    @property
    def vocab_size(self) -> int: ...
    @property
    def content_hash(self) -> str: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def chat(self) -> ChatFormat: ...

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text; no beginning or end of sequence is added."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Same as `encode` on each text, in one call that uses all cores."""
        ...

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of the ids. Control tokens give no text."""
        ...

    def is_control(self, token: int) -> bool: ...

    def piece(self, token: int) -> str:
        """The token as the vocabulary spells it."""
        ...

    def save(self, folder: str | os.PathLike) -> None:
        """Writes all that `load_chat_tokenizer` needs to give back an equal one."""
        ...


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int, name: str = "") -> None:
    """Refuses a tokenizer with more tokens than the model has embeddings.

    Args:
        tokenizer: of the model.
        vocab_size: rows of the embedding table. It may have more rows than there are
            tokens: they are padded to a multiple of something in many models.
        name: of the model, for the message.

    Raises:
        ValueError: a token has no row.
    """
    if vocab_size < tokenizer.vocab_size:
        last = tokenizer.piece(tokenizer.vocab_size - 1)
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens (the last is {last!r}), "
            f"but the embeddings of model {name!r} have {vocab_size} rows; the two "
            "belong to different models, or tokens were added without their rows: "
            "give config.tokenizer.path the tokenizer of this model"
        )
