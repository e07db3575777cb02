"""From examples to difficulty tiers: a number per example, and cuts between them."""

from collections.abc import Sequence

import numpy as np

from dcft_jax.data.chat import encode_examples
from dcft_jax.data.example import Example
from dcft_jax.data.tokenizer import Tokenizer

MAX_TIERS = 127  # tiers of examples are int8


def levels(ability: str, examples: Sequence[Example]) -> np.ndarray:
    """The level that its source gives each example, float64.

    Raises:
        ValueError: a source gives none; names it and what to do.
    """
    for example in examples:
        if example.metadata.get("difficulty") is None:
            raise ValueError(
                f"abilities.{ability}.tiers.by='level': source {example.source!r} says "
                "of an example not how hard it is; set "
                f"abilities.{ability}.sources.{example.source}.difficulty for all of "
                "them, or use 'length' or 'loss'"
            )
    return np.array([e.metadata["difficulty"] for e in examples], np.float64)


def response_lengths(examples: Sequence[Example], tokenizer: Tokenizer) -> np.ndarray:
    """Trained tokens of each example before truncation, float64."""
    encoded = encode_examples(examples, tokenizer)
    return np.array([mask_L.sum() for _, mask_L in encoded], np.float64)


def cut_points(difficulty_N: np.ndarray, count: int) -> np.ndarray:
    """The lowest difficulty of every tier but the first, strictly increasing.

    Tiers hold about equally many examples, and examples of one difficulty share a tier.
    Every tier has an example: with fewer different values than `count` there is a tier
    for each value. From the easiest on, a tier ends where its size is nearest to an
    equal part of what is left, and where enough values are left for the others.
    """
    values_D, counts_D = np.unique(difficulty_N, return_counts=True)
    below_D = np.cumsum(counts_D)
    num_tiers = min(count, len(values_D))
    starts = [0]
    for left in range(num_tiers, 1, -1):
        used = below_D[starts[-1] - 1] if starts[-1] else 0
        target = used + (below_D[-1] - used) / left
        first, last = starts[-1] + 1, len(values_D) - left + 1
        choices = np.arange(first, last + 1)
        # Ties go to the shorter tier.
        nearest = np.argmin(np.abs(below_D[choices - 1] - target))
        starts.append(int(choices[nearest]))
    return values_D[starts[1:]]


def assign(difficulty_N: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """The tier of each example, int8, 0 the easiest."""
    return np.searchsorted(cuts, difficulty_N, side="right").astype(np.int8)
