"""Replies that end at stop strings, as the tasks of lm-evaluation-harness ask for."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.models.utils import (  # pyright: ignore[reportMissingImports]
    normalize_gen_kwargs,
)

from dcft_jax.data import Tokenizer, reply_text
from dcft_jax.data.hf_tokenizer import HFTokenizer
from dcft_jax.evaluation.task import Subject
from dcft_jax.models import Sampling, stream

CHUNK = 32  # tokens between two looks for stop strings
# Change nothing at these values, which some tasks spell out.
NEUTRAL = {"num_beams": 1, "repetition_penalty": 1.0, "num_return_sequences": 1}


@dataclasses.dataclass(frozen=True)
class Generation:
    """How to reply; `generation_kwargs` of a task."""

    until: tuple[str, ...]  # a reply ends before the first of them
    max_new_tokens: int
    sampling: Sampling


def read_generation(kwargs: Mapping[str, Any], max_gen_toks: int) -> Generation:
    """What a task's `generation_kwargs` ask for.

    Without `do_sample` or a temperature above 0 the most likely token is taken. All
    tokens are drawn from unless `top_k` or `top_p` is given (transformers may have
    other defaults).

    Args:
      max_gen_toks: where the task gives no number of tokens.

    Raises:
      ValueError: an option is out of range, or is none that can be followed.
    """
    found: dict[str, Any] = dict(normalize_gen_kwargs(dict(kwargs), max_gen_toks))
    until = tuple(stop for stop in found.pop("until") if stop)
    max_new_tokens = found.pop("max_gen_toks")
    if max_new_tokens < 1:
        raise ValueError(
            f"generation_kwargs: max_gen_toks={max_new_tokens} must be at least 1"
        )
    sampled = found.pop("do_sample")
    given = {name: found.pop(name, None) for name in ("temperature", "top_k", "top_p")}
    found = {k: v for k, v in found.items() if v is not None and v != NEUTRAL.get(k)}
    if found:
        name, value = next(iter(found.items()))
        raise ValueError(
            f"generation_kwargs: {name}={value!r} is not supported; there are until, "
            "max_gen_toks, do_sample, temperature, top_k, top_p: change the task"
        )
    if not sampled:
        return Generation(until, max_new_tokens, Sampling())
    chosen: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | {
        name: value for name, value in given.items() if value is not None
    }
    sampling = Sampling(
        temperature=chosen["temperature"],
        top_k=int(chosen["top_k"]),
        top_p=chosen["top_p"],
    )
    return Generation(until, max_new_tokens, sampling)


def stop_ids_of(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What ends a text or a turn; the first is the end of a turn if there are turns.

    Raises:
      ValueError: the tokenizer has neither a chat template nor such a token.
    """
    if not isinstance(tokenizer, HFTokenizer) or tokenizer.layout is not None:
        return tokenizer.chat.stop_ids
    if not tokenizer.eos_ids:
        raise ValueError(
            f"the tokenizer of {tokenizer.name} has no token that ends a text; name "
            "eos_token in its tokenizer_config.json"
        )
    return tokenizer.eos_ids


def generate_texts(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    generation: Generation,
    *,
    stop_ids: Sequence[int],
    row_ids: Sequence[int],
    batch_size: int,
    seed: int = 0,
) -> list[str]:
    """Replies to one batch; done when each has ended or holds a stop string.

    Args:
      stop_ids, row_ids, seed: see `models.generate`.
      batch_size: rows that the batch is filled up to.
    """
    texts: list[str] = []
    for replies in stream(
        subject.model,
        subject.params,
        prompts,
        max_new_tokens=generation.max_new_tokens,
        stop_ids=stop_ids,
        sampling=generation.sampling,
        seed=seed,
        row_ids=row_ids,
        min_rows=batch_size,
        chunk=CHUNK,
    ):
        ended = [reply[-1] in stop_ids for reply in replies]
        texts = [
            _text(subject.tokenizer, prompt, reply[:-1] if end else reply)
            for prompt, reply, end in zip(prompts, replies, ended, strict=True)
        ]
        if all(
            end or any(stop in text for stop in generation.until)
            for end, text in zip(ended, texts, strict=True)
        ):
            break
    return [_cut(text, generation.until) for text in texts]


def _cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string."""
    ends = [text.find(stop) for stop in stops if stop in text]
    return text[: min(ends, default=len(text))]


def _text(tokenizer: Tokenizer, prompt: Sequence[int], reply: Sequence[int]) -> str:
    # Behind a control token begins a message, and its first space is the format's;
    # behind a text the space is part of what continues it.
    if tokenizer.is_control(prompt[-1]):
        return reply_text(reply, tokenizer)
    return tokenizer.decode(reply)
