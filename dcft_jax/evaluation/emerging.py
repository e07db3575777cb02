"""Tasks that no training source uses: how well a composition is predicted for new ones.

They are families of Reasoning Gym (Stojanovski et al., arXiv:2505.24760). Its scorers
are not called: some evaluate the answer as Python, some give points for nonsense. Only
questions stay whose label is the one answer that their text allows, which is computed
here once more; see `dcft_jax.evaluation.unambiguous`.
"""

import contextlib
import hashlib
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

from dcft_jax.data.example import normalise
from dcft_jax.data.sources.generated import MAX_DRAWS, reserved_index
from dcft_jax.evaluation.items import Item
from dcft_jax.evaluation.readings.families import FEMALE, MALE
from dcft_jax.evaluation.unambiguous import is_unambiguous

COUNT = 256  # test items of a family
SPLITS = ("support", "test")


class Family(NamedTuple):
    """A task of the suite.

    Attributes:
        category: as Reasoning Gym sorts it. "arithmetic" and "algorithmic" have
            families in configs/quickstart.py as well, the others have none.
        kind: of the items, see `Item`; "" where a number is judged as an "answer" and
            anything else as "exact".
        params: settings of the generator.
    """

    category: str
    kind: str
    params: Mapping[str, Any] = {}


FAMILIES = {
    "syllogism": Family("logic", "exact"),
    # Without `colleagues`: whether Matilda counts those of the second circle is open.
    "aiw": Family("logic", "answer", {"task_type_weights": [0.5, 0.5, 0.0]}),
    "family_relationships": Family(
        "graphs", "exact", {"male_names": [*MALE], "female_names": [*FEMALE]}
    ),
    "simple_geometry": Family("geometry", "answer"),
    "bf": Family("code", "exact"),
    "calendar_arithmetic": Family("arithmetic", ""),
    # Without `time_ms`: its labels are cut from floats, some a millisecond too small.
    "time_intervals": Family(
        "arithmetic",
        "exact",
        {"task_types": ["time", "time_seconds", "date", "datetime", "datetime_tz"]},
    ),
    "base_conversion": Family("algorithmic", "exact"),
}

# Families that would be as far from the training tasks, and why they are no test.
LEFT_OUT = {
    "caesar_cipher": "all its texts are 319 sentences of one story: training on the "
    "family teaches the texts",
    "coin_flip": "has 260 questions, and rounds some of their answers",
    "number_sequence": "every next number continues a sequence by some rule",
    "word_ladder": "has several shortest ladders for most pairs of words",
}


def emerging_items(
    family: str, count: int = COUNT, split: str = "test", seed: int = 0
) -> list[Item]:
    """Items of one family, drawn from indices that no training source can draw from.

    A prompt belongs to one of the splits by its hash, whatever index gives it, so they
    never share one. A training source of the same family may still make the same
    question: `dcft_jax.evaluation.overlap` finds those.

    Args:
        family: of `FAMILIES`.
        count: number of items; their prompts are distinct.
        split: "test", or "support" for the examples that describe the task.
        seed: another one draws other items, for both splits.

    Raises:
        ValueError: an unknown family or split, a count below 1, or one that the family
            cannot fill.
        ImportError: reasoning-gym is not installed.
    """
    if family not in FAMILIES:
        raise ValueError(f"family {family!r}: there are {', '.join(FAMILIES)}")
    if split not in SPLITS:
        raise ValueError(f"split={split!r} must be one of {SPLITS}")
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    draws = MAX_DRAWS * count
    params, first = FAMILIES[family].params, reserved_index(seed)
    dataset = open_dataset(family, **params, seed=first, size=draws)
    found: dict[str, Item] = {}
    for index in range(draws):
        if len(found) == count:
            return list(found.values())
        with contextlib.redirect_stdout(io.StringIO()):  # some print as they generate
            drawn = dataset[index]
        prompt, label = drawn["question"].strip(), drawn["answer"]
        if _split(prompt) == split and is_unambiguous(family, drawn["question"], label):
            item = _item(family, f"{family}/{seed}-{index}", prompt, label)
            found.setdefault(normalise(prompt), item)
    raise ValueError(
        f"{family}: asked for {count} items of {split}, but {draws} draws gave only "
        f"{len(found)} distinct ones; ask for fewer"
    )


def _item(family: str, identity: str, prompt: str, label: str) -> Item:
    known = FAMILIES[family]
    return Item(
        id=identity,
        task=family,
        prompt=prompt,
        kind=known.kind or ("answer" if label.isdigit() else "exact"),
        reference=label,
        gold=label,
        metadata={"category": known.category},
    )


def _split(prompt: str) -> str:
    """A quarter of all prompts is for support."""
    digest = hashlib.blake2b(normalise(prompt).encode(), digest_size=1).digest()
    return "support" if digest[0] < 64 else "test"


def open_dataset(task: str, **settings: Any) -> Any:
    """A dataset of Reasoning Gym, opened without what importing it prints.

    Raises:
        ImportError: reasoning-gym is not installed.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from reasoning_gym.factory import create_dataset
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the task {task!r} needs the module {error.name!r}; "
            "pip install 'dcft-jax[quickstart]'"
        ) from error
    return create_dataset(task, **settings)
