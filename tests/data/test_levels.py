"""What sources say about how hard their examples are."""

import json

import pytest
from ml_collections import ConfigDict

from dcft_jax.data.sources import open_source
from dcft_jax.data.sources.levels import code_level, mean_position


def load(on_bad_row="fail", **fields):
    source = ConfigDict(fields)
    data = open_source(source, held_out=4, seed=0, on_bad_row=on_bad_row)
    return data.splits.get("train") or data.splits["all"]


def levels(rows):
    return [row.metadata.get("difficulty") for row in rows]


@pytest.fixture
def path(tmp_path):
    rows = [
        {"prompt": "1+1?", "response": "2", "level": "Level 1", "grade": 1},
        {"prompt": "7*8?", "response": "56", "level": "Level 5", "grade": 2.5},
        {"prompt": "2+5?", "response": "7", "level": "Level 1", "grade": "1"},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(file)


def test_a_field_of_a_row_says_how_hard_it_is(path):
    rows = load(kind="jsonl", path=path, difficulty_field="grade")
    assert levels(rows) == [1, 2.5, 1]
    rows = load(
        kind="jsonl",
        path=path,
        difficulty_field="level",
        difficulty_levels=("Level 1", "Level 2", "Level 5"),
    )
    assert levels(rows) == [0, 2, 0]
    assert levels(load(kind="jsonl", path=path)) == [None] * 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(difficulty_field="level"), r"rows.jsonl:1: level='Level 1' is not a num"),
        (dict(difficulty_field="none"), "none=None is not a number"),
        (
            dict(difficulty_field="level", difficulty_levels=("Level 1",)),
            r"rows.jsonl:2: level='Level 5' is not one of",
        ),
        (dict(difficulty_levels=("a", "b")), "needs a difficulty_field"),
        (dict(difficulty_field="level", difficulty_levels=("a", "a")), "twice"),
        (dict(difficulty="hard"), "difficulty='hard' must be a finite number"),
    ],
)
def test_levels_that_cannot_be_read_are_refused(path, fields, message):
    with pytest.raises(ValueError, match=message):
        load(kind="jsonl", path=path, **fields)


def test_a_row_of_unknown_level_is_skipped_where_bad_rows_are(path):
    fields = dict(difficulty_field="level", difficulty_levels=("Level 1",))
    assert levels(load("skip", kind="jsonl", path=path, **fields)) == [0, 0]


def test_a_source_can_be_given_one_level(path):
    rows = load(kind="jsonl", path=path, difficulty_field="grade", difficulty=7)
    assert levels(rows) == [7] * 3
    assert levels(load(kind="micro_functions", examples=5, difficulty=0.5)) == [0.5] * 5


def test_code_is_harder_the_more_it_does():
    bodies = ["pass", "return n + 3", "return n * 3 + 4"]
    bodies.append("if n % 2 == 0:\n    return n + 3\nreturn n - 4")
    found = [code_level(body) for body in bodies]
    assert found == sorted(found) and found[0] == 0 and len(set(found)) == 4


def test_built_in_sources_know_their_levels():
    code = load(kind="micro_functions", examples=200)
    assert levels(code) == [code_level(row.reply) for row in code]
    assert len(set(levels(code))) >= 4
    general = load(kind="instructions", examples=200)
    assert set(levels(general)) == {2, 3, 4, 5, 6}
    by_level = {row.metadata["difficulty"]: row for row in general}
    assert len(by_level[6].metadata["arguments"]["words"]) == 6


def test_mean_position():
    ranges = {"terms": (2, 6), "digits": [1, 3], "fixed": (4, 4), "names": ["a", "b"]}
    item = {"terms": 6, "digits": 2, "fixed": 4, "names": "a"}
    assert mean_position(item, ranges) == 0.75
    assert mean_position({"fixed": 4, "names": "a"}, ranges) is None


def sums(**fields):
    pytest.importorskip("reasoning_gym")
    return load(kind="reasoning_gym", task="chain_sum", examples=60, **fields)


def num_terms(row):
    return row.prompt[-1][1].count(" + ") + row.prompt[-1][1].count(" - ") + 1


def test_a_curriculum_is_drawn_from_level_by_level():
    rows = sums(levels=(0, 2, 4))
    counts = [levels(rows).count(level) for level in (0, 2, 4)]
    assert sum(counts) == 60 and min(counts) > 10
    # Level n of this curriculum has n + 2 terms, and no easier ones.
    assert all(num_terms(row) == row.metadata["difficulty"] + 2 for row in rows)
    assert [row.messages for row in sums(levels=(0, 2, 4))] == [
        row.messages for row in rows
    ]


def test_params_come_before_the_curriculum():
    rows = sums(levels=(0, 2), params=dict(min_terms=3, max_terms=3))
    assert {num_terms(row) for row in rows} == {3}


def test_items_without_levels_lie_in_the_ranges_of_their_family():
    rows = sums(params=dict(min_terms=2, max_terms=6, min_digits=2, max_digits=2))
    for row in rows:
        assert row.metadata["difficulty"] == (num_terms(row) - 2) / 4


def test_levels_that_a_family_does_not_have_are_refused():
    with pytest.raises(ValueError, match=r"levels: 40 is no level.*levels 0 to 10"):
        sums(levels=(0, 40))
    with pytest.raises(ValueError, match="gsm_symbolic' has no curriculum"):
        load(kind="reasoning_gym", task="gsm_symbolic", examples=9, levels=(0,))
