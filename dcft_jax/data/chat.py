"""From a conversation to tokens, and which of them are trained."""

from collections.abc import Sequence

from dcft_jax.data.chat_format import Encoded
from dcft_jax.data.example import Example
from dcft_jax.data.tokenizer import Tokenizer


def encode_example(example: Example, tokenizer: Tokenizer) -> Encoded:
    """One example as `tokens_L` (int32) and `loss_mask_L` (bool).

    The layout is that of `tokenizer.chat`. The mask is True on the content of
    assistant messages and on the token that ends their turn, of all of them in a
    conversation with several turns, and nowhere else. The end is trained so that a
    reply knows where to stop.

    Raises:
        ValueError: unknown role, the last message is not the assistant's, or the
            chat format does not take such a conversation.
    """
    return encode_examples([example], tokenizer)[0]


def encode_examples(examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
    """`encode_example` of each, with all texts encoded in one call."""
    for example in examples:
        _check_roles(example)
    try:
        return tokenizer.chat.encode_batch([example.messages for example in examples])
    except ValueError:
        _raise_with_source(examples, tokenizer)
        raise


def reply_text(tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    """What was replied, given the generated tokens with or without the stop token."""
    # The space that every message is written behind is the format's, not the reply's.
    return tokenizer.decode(tokens).removeprefix(" ")


def _raise_with_source(examples: Sequence[Example], tokenizer: Tokenizer) -> None:
    """Encodes one by one, to say which source the bad conversation is from."""
    for example in examples:
        try:
            tokenizer.chat.encode(example.messages)
        except ValueError as error:
            raise ValueError(f"source {example.source!r}: {error}") from error


def _check_roles(example: Example) -> None:
    roles = [role for role, _ in example.messages]
    unknown = set(roles) - {"system", "user", "assistant"}
    if unknown or not roles or roles[-1] != "assistant":
        tools = unknown & {"tool", "function", "ipython"}
        raise ValueError(
            f"source {example.source!r}: roles are {roles}; they must be system, user "
            "or assistant, and the last one assistant"
            + ("; conversations with tools are not supported" if tools else "")
        )
