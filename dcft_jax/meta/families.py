"""Task families that compositions are learnt from: small tasks with short replies.

They are families of Reasoning Gym (Stojanovski et al., arXiv:2505.24760), none of which
is among the emerging ones (`dcft_jax.evaluation.emerging`): those are for testing only.
Models are measured on both, and on published tasks (`dcft_jax.meta.published`).
Its scorers are not called; a reply is right if it is the label.

Reasoning Gym seeds item i with `seed + i`, so data sets with neighbouring seeds share
nearly all items. Here every (seed, split) draws from indices of its own, and a prompt
belongs to one split by its hash, whatever index gives it: families with few prompts
draw the same one again and again.
"""

import contextlib
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dcft_jax.data.example import Example, normalise
from dcft_jax.data.fetch.store import CACHE
from dcft_jax.data.sources.generated import BLOCK
from dcft_jax.evaluation import emerging
from dcft_jax.meta.published import PUBLISHED, published_examples

# Of 256 values of the hash of a prompt, how many belong to each split.
SHARES = {"train": 160, "mix_val": 32, "support": 32, "test": 32}
SPLITS = tuple(SHARES)
MAX_SEED = 2**31  # larger ones would reach the indices of the emerging families
MAX_DRAWS = 64  # for every example asked for


class Family(NamedTuple):
    """A task; `category` as Reasoning Gym sorts it, `params` of its generator."""

    category: str
    params: Mapping[str, Any] = {}


FAMILIES = {
    "simple_equations": Family("algebra"),
    "complex_arithmetic": Family("algebra"),
    "basic_arithmetic": Family("arithmetic"),
    "chain_sum": Family("arithmetic"),
    "decimal_chain_sum": Family("arithmetic"),
    "decimal_arithmetic": Family("arithmetic"),
    "products": Family("arithmetic"),
    "gcd": Family("arithmetic"),
    "lcm": Family("arithmetic"),
    "count_bits": Family("arithmetic"),
    "fraction_simplification": Family("arithmetic", {"styles": ("plain",)}),
    "prime_factorization": Family("arithmetic", {"max_value": 10_000}),
    "bitwise_arithmetic": Family("arithmetic", {"difficulty": 1}),
    "number_format": Family("arithmetic", {"max_num_candidates": 2}),
    "leg_counting": Family("arithmetic", {"max_animals": 4}),
    "spell_backward": Family("algorithmic"),
    "letter_counting": Family("algorithmic", {"max_words": 10}),
    "count_primes": Family("algorithmic"),
    "number_filtering": Family("algorithmic", {"max_numbers": 5, "max_decimals": 1}),
    "sentence_reordering": Family("algorithmic", {"max_words_in_sentence": 8}),
    "word_sequence_reversal": Family("algorithmic", {"max_words": 5}),
    "isomorphic_strings": Family("algorithmic", {"max_string_length": 8}),
    "word_sorting": Family("algorithmic", {"max_words": 5, "max_word_length": 8}),
    "ransom_note": Family("algorithmic", {"max_magazine_length": 15}),
    "number_sequence": Family("cognition", {"max_complexity": 1}),
    "color_cube_rotation": Family("cognition"),
}


# Tasks that predictions are tested with, and that nothing is ever learnt from.
TEST_TASKS = (
    *emerging.FAMILIES,
    *(task for task, known in PUBLISHED.items() if not known.learnt_from),
)


def category(task: str) -> str:
    """Of a family of this module, an emerging one, or a published task.

    Raises:
      ValueError: it is none of them.
    """
    for known in (FAMILIES, emerging.FAMILIES, PUBLISHED):
        if task in known:
            return known[task].category
    names = ", ".join([*FAMILIES, *emerging.FAMILIES, *PUBLISHED])
    raise ValueError(f"task {task!r}: there are {names}")


def examples(
    task: str, split: str, count: int, seed: int = 0, directory: str | Path = CACHE
) -> list[Example]:
    """Examples with distinct prompts, the same every time.

    Args:
      task: of `FAMILIES`, or an emerging family or a published task for the splits
        "support" and "test".
      split: of `SPLITS`.
      count: how many; of a published task fewer, if it has no more.
      seed: another one draws from other indices; a prompt stays in its split.
      directory: of published tasks, see `published_examples`.

    Raises:
      ValueError: an unknown task or split, a count below 1, a seed out of range, or
        more than the family can fill.
      ImportError: reasoning-gym is not installed.
      FileNotFoundError: a published task was not fetched.
    """
    if task in PUBLISHED:
        return published_examples(task, split, count, seed, directory)
    if task in emerging.FAMILIES:
        items = emerging.emerging_items(task, count, split, seed)
        return [_example(task, item.prompt, item.reference) for item in items]
    category(task)
    first = first_index(seed, split)
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    params, draws = FAMILIES[task].params, MAX_DRAWS * count
    dataset = emerging.open_dataset(task, **params, seed=first, size=draws)
    found: dict[str, Example] = {}
    for index in range(MAX_DRAWS * count):
        if len(found) == count:
            break
        with contextlib.redirect_stdout(io.StringIO()):  # some print as they generate
            drawn = dataset[index]
        prompt = drawn["question"].strip()
        if split_of(prompt) == split:
            label = str(drawn["answer"]).strip()
            found.setdefault(normalise(prompt), _example(task, prompt, label))
    if len(found) < count:
        raise ValueError(
            f"{task}: asked for {count} examples of {split}, but {MAX_DRAWS * count} "
            f"draws gave only {len(found)} distinct ones; ask for fewer"
        )
    return list(found.values())


def first_index(seed: int, split: str) -> int:
    """Where the range of BLOCK indices of a split begins; ranges never overlap."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r} must be one of {SPLITS}")
    if not 0 <= seed < MAX_SEED:
        raise ValueError(f"seed={seed} must be from 0 to {MAX_SEED - 1}")
    return (seed * len(SPLITS) + SPLITS.index(split)) * BLOCK


def split_of(prompt: str) -> str:
    """The one split that may hold a prompt."""
    digest = hashlib.blake2b(normalise(prompt).encode(), digest_size=1, person=b"meta")
    value = digest.digest()[0]
    for split, share in SHARES.items():
        if value < share:
            return split
        value -= share
    raise AssertionError(f"SHARES {SHARES} do not sum to 256")


def _example(task: str, prompt: str, label: str) -> Example:
    messages = (("user", prompt), ("assistant", label))
    return Example(messages, task, single_reference=True)
