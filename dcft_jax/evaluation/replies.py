"""Replies of a model to many conversations, for as long as there is time."""

import dataclasses
import random
from collections.abc import Callable, Sequence
from time import monotonic

import jax
import numpy as np
from jax.experimental import multihost_utils

from dcft_jax.data import Tokenizer, reply_text
from dcft_jax.data.chat_format import Messages
from dcft_jax.models import ModelConfig, Params, Sampling, stream


@dataclasses.dataclass(frozen=True)
class Reply:
    text: str
    num_tokens: int  # with the one that ends it
    cut: bool  # it did not end within the tokens that it was given


def generate_replies(
    model: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    conversations: Sequence[Messages],
    *,
    max_new_tokens: int,
    num_samples: int = 1,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    seed: int = 0,
    batch_size: int = 16,
    max_length: int = 2048,
    seconds: float = 0.0,
    advance: Callable[[int], None] | None = None,
) -> list[list[Reply] | None]:
    """`num_samples` replies to each conversation; None: too long, or no time left.

    What is replied to a conversation depends on it, its place in the list and the seed,
    and not on the time. Conversations are taken in an order that the seed shuffles, so
    that those which there was time for are a fair sample. With several processes each
    passes all of them and gets all replies. Call under `jax.set_mesh`.

    Args:
      max_new_tokens: of a reply.
      batch_size: replies decoded together.
      max_length: tokens of a prompt at most; memory grows with its square.
      seconds: after so many no new batch is begun; 0: no limit. At least one batch is
        replied to.
      advance: is told how many more conversations were replied to.

    Raises:
      ValueError: an option is out of range, or the tokenizer has no chat format.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples}: must be at least 1")
    if num_samples > 1 and sampling.temperature == 0:
        raise ValueError(
            f"num_samples={num_samples}: at temperature 0 all would be the same; set "
            "it above 0"
        )
    prompts = [tokenizer.chat.encode_prompt(messages) for messages in conversations]
    lengths = [len(prompt) for prompt in prompts]
    order = _order(lengths, max_length, seed, by_length=not seconds)
    replies: list[list[Reply] | None] = [None] * len(prompts)
    per_batch = min(max(batch_size // num_samples, 1), max(len(order), 1))
    started = monotonic()
    for first in range(0, len(order), per_batch):
        if first and _is_over(started, seconds):
            break
        chosen = order[first : first + per_batch]
        *_, tokens = stream(
            model,
            params,
            [prompts[i].tolist() for i in chosen for _ in range(num_samples)],
            max_new_tokens=max_new_tokens,
            stop_ids=tokenizer.chat.stop_ids,
            sampling=sampling,
            seed=seed,
            row_ids=[i * num_samples + j for i in chosen for j in range(num_samples)],
            # The last batch may be smaller, but is no program of its own.
            min_rows=per_batch * num_samples,
            chunk=max_new_tokens,
        )
        found = [_reply(one, tokenizer) for one in tokens]
        for place, i in enumerate(chosen):
            replies[i] = found[place * num_samples : (place + 1) * num_samples]
        if advance is not None:
            advance(len(chosen))
    return replies


def _order(
    lengths: Sequence[int], max_length: int, seed: int, by_length: bool
) -> list[int]:
    """The prompts that are short enough, in an order that the seed shuffled.

    `by_length`: if nobody is left out, batches may be of equal lengths and waste less.
    """
    order = [i for i, length in enumerate(lengths) if length <= max_length]
    random.Random(seed).shuffle(order)
    return sorted(order, key=lambda i: lengths[i]) if by_length else order


def _is_over(started: float, seconds: float) -> bool:
    """The first process's clock decides for all: they must do the same."""
    if not seconds:
        return False
    over = monotonic() - started > seconds
    if jax.process_count() > 1:
        over = bool(multihost_utils.broadcast_one_to_all(np.asarray(over)))
    return over


def _reply(tokens: Sequence[int], tokenizer: Tokenizer) -> Reply:
    text = reply_text(tokens, tokenizer)
    return Reply(text, len(tokens), tokens[-1] not in tokenizer.chat.stop_ids)
