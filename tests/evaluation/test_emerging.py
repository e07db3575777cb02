"""Items of the families that no training source uses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from configs import quickstart
from dcft_jax.data.example import normalise
from dcft_jax.data.sources.generated import (
    BLOCK,
    RESERVED_SEED,
    SPLITS,
    first_index,
    reserved_index,
)
from dcft_jax.evaluation.emerging import FAMILIES, LEFT_OUT, emerging_items
from dcft_jax.evaluation.suites import load_suite
from dcft_jax.evaluation.unambiguous import READINGS, is_unambiguous

pytest.importorskip("reasoning_gym")


@pytest.mark.parametrize("family", FAMILIES)
def test_items_are_distinct_right_and_the_same_every_time(family):
    items = emerging_items(family, 40)
    assert len({normalise(item.prompt) for item in items}) == 40
    assert len({item.id for item in items}) == 40
    assert items == emerging_items(family, 40)
    assert items[:20] == emerging_items(family, 20)
    for item in items:
        assert READINGS[family](item.prompt) == {item.gold}
        assert item.task == family and item.gold == item.reference
        assert item.kind == "exact" or float(item.gold) >= 0


@pytest.mark.parametrize("family", ["aiw", "bf", "base_conversion"])
def test_splits_share_no_prompt_whatever_their_seeds(family):
    prompts = {
        split: {
            normalise(item.prompt)
            for seed in (0, 1)
            for item in emerging_items(family, 150, split, seed)
        }
        for split in ("support", "test")
    }
    assert not prompts["support"] & prompts["test"]
    again = emerging_items(family, 150, seed=1)
    assert {item.id for item in again} != {i.id for i in emerging_items(family, 150)}


@given(st.integers(0, RESERVED_SEED - 1), st.sampled_from(SPLITS), st.integers(0, 2**9))
def test_no_data_seed_reaches_the_reserved_indices(data_seed, split, seed):
    assert first_index(data_seed, split) + BLOCK <= reserved_index(seed)
    assert reserved_index(seed + 1) - reserved_index(seed) == BLOCK


def test_seeds_that_would_reach_them_are_refused():
    for seed in (RESERVED_SEED, RESERVED_SEED + 5):
        with pytest.raises(ValueError, match=rf"data\.seed={seed} must be below 2147"):
            first_index(seed, "train")
    with pytest.raises(ValueError, match="not be negative, got -1"):
        reserved_index(-1)


def test_no_ability_of_the_quickstart_uses_them():
    used = {
        source.get("task")
        for ability in quickstart.get_config().abilities.values()
        for source in ability.sources.values()
        if isinstance(source, ConfigDict)
    }
    assert {"basic_arithmetic", "spell_backward"} <= used
    assert not used & FAMILIES.keys()
    assert not FAMILIES.keys() & LEFT_OUT.keys()
    assert READINGS.keys() == FAMILIES.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(family="lcm"), "family 'lcm': there are syllogism"),
        (dict(family="bf", split="train"), "split='train' must be one of"),
        (dict(family="bf", count=0), "count=0 must be at least 1"),
        (dict(family="aiw", count=2000, split="support"), "only .*; ask for fewer"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        emerging_items(**arguments)


def test_a_wrong_label_is_not_kept():
    question = "Is 1900 a leap year? Answer with Yes or No."
    assert is_unambiguous("calendar_arithmetic", question, "No")
    assert not is_unambiguous("calendar_arithmetic", question, "Yes")
    with pytest.raises(ValueError, match="family 'lcm'"):
        is_unambiguous("lcm", question, "No")


def test_the_suite(tmp_path):
    suite = load_suite("emerging", limit=8, seed=3)
    assert {task: len(items) for task, items in suite.items()} == dict.fromkeys(
        FAMILIES, 8
    )
    with pytest.raises(ValueError, match="leave the directory out"):
        load_suite("emerging", tmp_path)
