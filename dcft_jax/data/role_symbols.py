"""The chat format of models trained from scratch: one symbol opens each message."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dcft_jax.data.chat_format import Encoded, Messages

if TYPE_CHECKING:
    from dcft_jax.data.sentencepiece_tokenizer import SentencePieceTokenizer


@dataclass(frozen=True)
class RoleSymbols:
    """`<bos>`, then for every message its role symbol, its content behind one space
    (see `as_written`) and `<end>`.
    """

    tokenizer: "SentencePieceTokenizer"

    @property
    def end_id(self) -> int:
        return self.tokenizer.end_id

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return (self.tokenizer.end_id,)

    @property
    def content_hash(self) -> str:
        return f"role symbols of {self.tokenizer.content_hash}"

    def encode(self, messages: Messages) -> Encoded:
        return self.encode_batch([messages])[0]

    def encode_batch(self, conversations: Sequence[Messages]) -> list[Encoded]:
        contents = [as_written(text) for c in conversations for _, text in c]
        ids = iter(self.tokenizer.encode_batch(contents))
        return [self._layout(c, [next(ids) for _ in c]) for c in conversations]

    def encode_prompt(self, messages: Messages) -> np.ndarray:
        roles = [role for role, _ in messages]
        if set(roles) - set(self.tokenizer.role_ids) or roles[-1:] != ["user"]:
            raise ValueError(
                f"roles of the prompt are {roles}; they must be of "
                f"{list(self.tokenizer.role_ids)}, and the last one user"
            )
        tokens_L, _ = self.encode(messages)
        return np.append(tokens_L, self.tokenizer.role_ids["assistant"]).astype(
            np.int32
        )

    def _layout(self, messages: Messages, ids: list[list[int]]) -> Encoded:
        tokens, mask = [self.tokenizer.bos_id], [False]
        for (role, _), content in zip(messages, ids, strict=True):
            tokens += [self.tokenizer.role_ids[role], *content, self.end_id]
            mask += [False] + [role == "assistant"] * (len(content) + 1)
        return np.array(tokens, np.int32), np.array(mask, bool)


def as_written(content: str) -> str:
    """The content of a message as it is tokenized: behind a space.

    Subword pieces know the space in front of a word. Without one, a word that opens a
    reply would be other tokens than the same word in the prompt, and copying it would
    have to be learnt word by word.
    """
    return f" {content}"
