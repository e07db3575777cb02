"""Task families: their splits never share a prompt, nor do they with emerging ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcft_jax.data.example import normalise
from dcft_jax.data.sources.generated import BLOCK, reserved_index
from dcft_jax.evaluation import emerging
from dcft_jax.meta.families import (
    FAMILIES,
    MAX_SEED,
    SHARES,
    SPLITS,
    category,
    examples,
    first_index,
    split_of,
)

pytest.importorskip("reasoning_gym")


def _prompts(task: str, split: str, count: int, seed: int = 0) -> set[str]:
    drawn = examples(task, split, count, seed)
    return {normalise(example.prompt[0][1]) for example in drawn}


def test_none_is_an_emerging_one():
    assert not FAMILIES.keys() & emerging.FAMILIES.keys()
    assert len(FAMILIES) >= 24


@pytest.mark.parametrize("task", FAMILIES)
def test_examples_are_short_and_the_same_every_time(task):
    drawn = examples(task, "test", 16)
    assert drawn == examples(task, "test", 16)
    assert drawn[:8] == examples(task, "test", 8)
    for example in drawn:
        (_, prompt), (_, reply) = example.messages
        assert 0 < len(reply) <= 120 and len(prompt) <= 460
        assert split_of(prompt) == "test"


# Few words, few pairs of numbers: other indices draw the same prompts again.
@pytest.mark.parametrize("task", ["spell_backward", "lcm"])
def test_splits_share_no_prompt_whatever_their_seeds(task):
    drawn = {
        split: _prompts(task, split, 100) | _prompts(task, split, 100, 1)
        for split in SPLITS
    }
    assert sum(map(len, drawn.values())) == len(set().union(*drawn.values()))
    assert _prompts(task, "train", 100) != _prompts(task, "train", 100, 1)


@given(
    st.integers(0, MAX_SEED - 1),
    st.integers(0, MAX_SEED - 1),
    st.sampled_from(SPLITS),
    st.sampled_from(SPLITS),
)
def test_ranges_of_indices_do_not_overlap(seed, other, split, other_split):
    first, second = first_index(seed, split), first_index(other, other_split)
    same = (seed, split) == (other, other_split)
    assert (first == second) if same else abs(first - second) >= BLOCK


def test_seeds_in_use_do_not_reach_the_emerging_ones():
    assert first_index(1000, "test") + BLOCK <= reserved_index(0)


def test_every_prompt_is_in_one_split():
    assert sum(SHARES.values()) == 256
    found = [split_of(f"prompt {i}") for i in range(4000)]
    for split, share in SHARES.items():
        assert abs(found.count(split) / 4000 - share / 256) < 0.03
    assert split_of("  Prompt  7") == split_of("prompt 7")


def test_emerging_families_have_no_train_split():
    assert len(examples("bf", "support", 4)) == 4
    assert category("bf") == "code" and category("lcm") == "arithmetic"
    with pytest.raises(ValueError, match="split='train' must be one of"):
        examples("bf", "train", 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(task="chess"), "task 'chess': there are simple_equations"),
        (dict(split="dev"), "split='dev' must be one of"),
        (dict(count=0), "count=0 must be at least 1"),
        (dict(seed=-1), "seed=-1 must be from 0 to"),
        (dict(task="count_bits", count=3, seed=MAX_SEED), f"seed={MAX_SEED} must be"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        examples(**{"task": "lcm", "split": "train", "count": 2, **arguments})
