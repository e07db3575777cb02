"""Prompts, checked and packed into the arrays of one batch."""

import math
from collections.abc import Sequence

import numpy as np

from dcft_jax import sharding
from dcft_jax.models.config import ModelConfig

MIN_BUCKET = 16  # tokens


def bucket_length(length: int) -> int:
    """The power of two, of at least `MIN_BUCKET`, that a prompt is padded to."""
    return max(MIN_BUCKET, 1 << (length - 1).bit_length())


def fill_up(
    config: ModelConfig,
    prompts: Sequence[Sequence[int]],
    row_ids: Sequence[int],
    min_rows: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prompts as `tokens_BL`, `start_B` and `row_B`, padded to a bucket.

    The number of rows, at least `min_rows`, is a power of two times what the mesh
    splits them into.
    """
    parts = sharding.num_parts(config.rules, "batch")
    rows = max(len(prompts), min_rows)
    rows = parts << (math.ceil(rows / parts) - 1).bit_length()
    length = bucket_length(max(map(len, prompts)))
    tokens_BL = np.zeros((rows, length), np.int32)
    start_B, row_B = np.full(rows, length, np.int32), np.zeros(rows, np.int32)
    row_B[: len(prompts)] = row_ids
    for row, prompt in enumerate(prompts):
        start_B[row] = length - len(prompt)
        tokens_BL[row, start_B[row] :] = prompt
    return tokens_BL, start_B, row_B


def check_prompts(
    vocab_size: int, prompts: Sequence[Sequence[int]], row_ids: Sequence[int]
) -> None:
    """Raises ValueError if a prompt is empty or holds unknown tokens."""
    for i, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise ValueError(
                f"prompts[{i}] is empty; give it at least one token, such as the one "
                "that begins a text"
            )
        _check_tokens(f"prompts[{i}]", prompt, vocab_size)
    if len(row_ids) != len(prompts):
        raise ValueError(
            f"row_ids has {len(row_ids)} numbers for {len(prompts)} prompts; give one "
            "for each"
        )
    wrong = [row for row in row_ids if not 0 <= row < 2**31]
    if wrong:
        raise ValueError(f"row_ids has {wrong[0]}; they must be in [0, 2**31)")


def check_options(
    vocab_size: int,
    max_new_tokens: int,
    chunk: int,
    seed: int,
    stop_ids: Sequence[int],
) -> None:
    """Raises ValueError if one is out of range."""
    for name, value in (("max_new_tokens", max_new_tokens), ("chunk", chunk)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} must be in [0, 2**32)")
    _check_tokens("stop_ids", stop_ids, vocab_size)


def _check_tokens(name: str, tokens: Sequence[int], vocab_size: int) -> None:
    wrong = [int(token) for token in tokens if not 0 <= token < vocab_size]
    if wrong:
        raise ValueError(
            f"{name} has token {wrong[0]}, but the vocabulary is [0, {vocab_size}); "
            "use the tokenizer of this model"
        )
