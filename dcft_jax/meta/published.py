"""Published tasks as tasks of a collection: described and measured, never trained on.

They are the suite `unseen` of `python -m dcft_jax.data.fetch`: BIG-bench (whose canary
string asks that nobody trains on it) and OpenAI evals. A collection learns which
mixtures suit those of Natural Instructions, and is tested with the others.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from dcft_jax.data.example import Example, normalise
from dcft_jax.data.fetch.store import CACHE
from dcft_jax.evaluation.items import Item
from dcft_jax.evaluation.suites import fetched

SPLITS = ("support", "test")


class Published(NamedTuple):
    """A task: a category of Reasoning Gym where one fits, and whether it may be learnt
    from; the others are for testing only."""

    category: str
    learnt_from: bool


# Not `sql`: its schemas are longer than a row of the small models.
PUBLISHED = {
    "unit_conversion": Published("arithmetic", False),
    "date_understanding": Published("arithmetic", False),
    "list_functions": Published("induction", False),
    "cs_algorithms": Published("algorithmic", False),
    "logical_deduction": Published("logic", False),
    "social_support": Published("emotion", False),
    "regex_match": Published("code", False),
    "first_letters": Published("algorithmic", False),
    "mctaco_question_generation_frequency": Published("question generation", True),
    "mctaco_answer_generation_frequency": Published("answer generation", True),
    "mctaco_temporal_reasoning_presence": Published("classification", True),
    "mctaco_grammatical_logical": Published("verification", True),
    "winogrande_answer_generation": Published("answer generation", True),
    "winogrande_question_modification_object": Published("modification", True),
    "qasc_generate_related_fact": Published("fact generation", True),
    "qasc_combined_fact": Published("fact generation", True),
    "qasc_question_generation": Published("question generation", True),
    "qasc_answer_generation": Published("answer generation", True),
    "qasc_incorrect_option_generation": Published("wrong answer generation", True),
    "miscellaenous_question_typing": Published("classification", True),
    "multirc_answerability": Published("classification", True),
}


def published_examples(
    task: str, split: str, count: int, seed: int = 0, directory: str | Path = CACHE
) -> list[Example]:
    """Examples with distinct prompts, without the definition of the task.

    Args:
      task: of the suite.
      split: of `SPLITS`; a prompt belongs to one by its hash.
      count: how many; fewer where the task has no more.
      seed: another one takes others.
      directory: what the fetch command was given as `--to`.

    Raises:
      FileNotFoundError: the suite was not fetched; the message says how to.
      ValueError: an unknown split, a count below 1, or a damaged file.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} must be one of {SPLITS}")
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    items = fetched("unseen", Path(directory), task)[task]
    found: dict[str, Item] = {}
    for item in sorted(items, key=lambda item: _digest(f"{seed}/{item.id}")):
        prompt = item.metadata["instance"]
        if split_of(prompt) == split:
            found.setdefault(normalise(prompt), item)
    return [_example(item) for item in [*found.values()][:count]]


def split_of(prompt: str) -> str:
    """Half of all prompts is for each."""
    return SPLITS[_digest(normalise(prompt))[0] % 2]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16, person=b"meta").digest()


def _example(item: Item) -> Example:
    messages = (("user", item.metadata["instance"]), ("assistant", item.reference))
    return Example(messages, item.task, single_reference=item.kind != "reference")
