import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from dcft_jax.data.example import prompt_key
from dcft_jax.data.sources.generated import BLOCK, SPLITS, first_index
from dcft_jax.data.sources.maths import reasoning_gym

pytest.importorskip("reasoning_gym")

SUMS = dict(
    task="basic_arithmetic",
    examples=300,
    params=dict(
        min_terms=2,
        max_terms=2,
        min_digits=2,
        max_digits=2,
        operators=("+", "-"),
        allow_parentheses=False,
        allow_negation=False,
    ),
)


def _source(**fields) -> ConfigDict:
    return ConfigDict(dict(kind="reasoning_gym", **fields))


def _load(fields, held_out=20, seed=0):
    return reasoning_gym(_source(**fields), held_out=held_out, seed=seed)


def test_answers_are_right():
    for example in _load(SUMS).splits["train"]:
        [(a, operator, b)] = re.findall(
            r"^Calculate (\d+) ([+-]) (\d+)\.$", example.prompt[0][1]
        )
        expected = int(a) + int(b) if operator == "+" else int(a) - int(b)
        assert example.reply == str(expected)
        assert example.single_reference


def test_splits_have_the_sizes_asked_for_and_distinct_prompts():
    splits = _load(SUMS).splits
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 300,
        "mix_val": 20,
        "test": 20,
    }
    for rows in splits.values():
        assert len({prompt_key(row) for row in rows}) == len(rows)


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=2, unique=True))
def test_index_ranges_never_overlap(seeds):
    starts = [first_index(seed, split) for seed in seeds for split in SPLITS]
    gaps = [abs(a - b) for i, a in enumerate(starts) for b in starts[:i]]
    assert min(gaps) >= BLOCK


def test_neighbouring_seeds_and_splits_hardly_share_prompts():
    # With the seed used as it is, neighbouring seeds share all items but one.
    fields = dict(task="simple_equations", examples=50)
    keys = [
        {prompt_key(row) for row in rows}
        for seed in (0, 1)
        for rows in _load(fields, held_out=50, seed=seed).splits.values()
    ]
    assert len(set().union(*keys)) >= 0.95 * sum(map(len, keys))


def test_same_seed_gives_the_same_examples_and_another_seed_others():
    assert _load(SUMS).splits == _load(SUMS).splits
    assert _load(SUMS).splits != _load(SUMS, seed=1).splits


def test_held_out_splits_do_not_depend_on_the_size_of_train():
    more = _load({**SUMS, "examples": 310})
    fewer = _load(SUMS)
    assert more.splits["test"] == fewer.splits["test"]
    assert more.splits["train"][:300] == fewer.splits["train"]


def test_worked_solutions_end_in_the_answer():
    fields = dict(task="gsm_symbolic", examples=20, response="worked", max_chars=400)
    for example in _load(fields, held_out=5).splits["train"]:
        assert not example.single_reference
        assert example.reply.endswith(f"#### {example.metadata['answer']}")
        assert len(example.prompt[0][1]) + len(example.reply) <= 400


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(task="graph_color", examples=5), "no reference answer"),
        (dict(task="n_queens", examples=5), "refused"),
        (dict(task="no_such_task", examples=5), "unknown reasoning_gym family"),
        (dict(task="gcd", examples=5, params=dict(nope=1)), "nope"),
        (dict(task="gcd", examples=5, params=dict(seed=1)), "must not set"),
        (dict(task="gcd", examples=5, params=dict(min_numbers=0)), "params"),
        (dict(task="gcd", examples=5, response="worked"), "no worked solutions"),
        (dict(task="gcd", examples=5, response="nope"), "'answer' or 'worked'"),
        (dict(task="coin_flip", examples=5000), "distinct prompts"),
        (dict(task="gcd", examples=-1), "at least 1"),
        (dict(task="gcd"), "needs the field 'examples'"),
    ],
)
def test_bad_sources_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        _load(fields, held_out=2)
