"""From a conversation to tokens, and which of them are trained."""

from collections.abc import Sequence

import numpy as np

from dcft_jax.data.example import Example
from dcft_jax.data.tokenizer import Tokenizer

Encoded = tuple[np.ndarray, np.ndarray]  # tokens_L int32, loss_mask_L bool


def encode_example(example: Example, tokenizer: Tokenizer) -> Encoded:
    """One example as `tokens_L` (int32) and `loss_mask_L` (bool).

    The layout is `<bos>`, then for every message its role symbol, its content behind
    one space (see `as_written`) and `<end>`. The mask is True on the content and
    `<end>` of assistant messages, of all of them in a conversation with several turns,
    and nowhere else: never on `<bos>`, a role symbol or a prompt. `<end>` is trained so
    that a reply knows where to stop.

    Raises:
        ValueError: unknown role, or the last message is not the assistant's.
    """
    return encode_examples([example], tokenizer)[0]


def encode_examples(examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
    """`encode_example` of each, with all texts encoded in one call."""
    for example in examples:
        _check_roles(example)
    contents = [as_written(content) for e in examples for _, content in e.messages]
    ids = iter(tokenizer.encode_batch(contents))
    return [_layout(e, [next(ids) for _ in e.messages], tokenizer) for e in examples]


def encode_prompt(
    messages: Sequence[tuple[str, str]], tokenizer: Tokenizer
) -> list[int]:
    """A conversation up to where the assistant's next message begins.

    The layout of `encode_example`: what it trains of the reply, a model generates.

    Args:
        messages: (role, content), the last one the user's.

    Raises:
        ValueError: unknown role, or the last message is not the user's.
    """
    roles = [role for role, _ in messages]
    if set(roles) - set(tokenizer.role_ids) or not roles or roles[-1] != "user":
        raise ValueError(
            f"roles of the prompt are {roles}; they must be of "
            f"{list(tokenizer.role_ids)}, and the last one user"
        )
    tokens = [tokenizer.bos_id]
    for role, content in messages:
        ids = tokenizer.encode(as_written(content))
        tokens += [tokenizer.role_ids[role], *ids, tokenizer.end_id]
    return [*tokens, tokenizer.role_ids["assistant"]]


def as_written(content: str) -> str:
    """The content of a message as it is tokenized: behind a space.

    Subword pieces know the space in front of a word. Without one, a word that opens a
    reply would be other tokens than the same word in the prompt, and copying it would
    have to be learnt word by word.
    """
    return f" {content}"


def _layout(example: Example, ids: list[list[int]], tokenizer: Tokenizer) -> Encoded:
    tokens, mask = [tokenizer.bos_id], [False]
    for (role, _), content in zip(example.messages, ids, strict=True):
        tokens += [tokenizer.role_ids[role], *content, tokenizer.end_id]
        mask += [False] + [role == "assistant"] * (len(content) + 1)
    return np.array(tokens, np.int32), np.array(mask, bool)


def _check_roles(example: Example) -> None:
    roles = [role for role, _ in example.messages]
    unknown = set(roles) - {"system", "user", "assistant"}
    if unknown or not roles or roles[-1] != "assistant":
        raise ValueError(
            f"source {example.source!r}: roles are {roles}; they must be system, user "
            "or assistant, and the last one assistant"
        )
