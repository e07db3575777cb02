import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcft_jax.data import rows as rows_module
from dcft_jax.data.chat import encode_example
from dcft_jax.data.example import Example
from dcft_jax.data.packing import best_fit, pack_examples
from dcft_jax.data.rows import hash_rows, load_rows, save_rows
from dcft_jax.data.sentencepiece_tokenizer import train_tokenizer

TEXT = st.text(alphabet="ab 1\n", max_size=20)
EXAMPLES = st.lists(
    st.builds(
        lambda question, reply, single: Example(
            (("user", question), ("assistant", reply)), "s", single
        ),
        TEXT,
        TEXT,
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "t.model"
    return train_tokenizer(["ab 1\n ba 1 aa bb"] * 4, 270, path)


def segments(rows):
    """(row, segment index, slice of the row) of every example."""
    for n, m in zip(*np.nonzero(rows.example_NM >= 0), strict=True):
        where = np.flatnonzero(rows.segments_NL[n] == m + 1)
        assert where.size and np.array_equal(np.diff(where), np.ones(where.size - 1))
        yield n, m, slice(where[0], where[-1] + 1)


@given(EXAMPLES, st.integers(1, 60), st.randoms())
@settings(deadline=None)
def test_packing_keeps_every_example_once_and_whole(
    tokenizer, examples, seq_len, random
):
    order = random.sample(range(len(examples)), len(examples))
    rows = pack_examples(examples, tokenizer, seq_len, order)
    assert sorted(rows.example_NM[rows.example_NM >= 0]) == list(range(len(examples)))
    covered = np.zeros_like(rows.loss_mask_NL)
    for n, m, part in segments(rows):
        example = examples[rows.example_NM[n, m]]
        tokens, mask = encode_example(example, tokenizer)
        np.testing.assert_array_equal(rows.tokens_NL[n, part], tokens[:seq_len])
        np.testing.assert_array_equal(rows.loss_mask_NL[n, part], mask[:seq_len])
        np.testing.assert_array_equal(
            rows.positions_NL[n, part], np.arange(min(len(tokens), seq_len))
        )
        whole = len(tokens) <= seq_len
        assert rows.scored_NM[n, m] == (whole and example.single_reference)
        covered[n, part] = True
    np.testing.assert_array_equal(covered, rows.segments_NL > 0)
    assert not rows.scored_NM[rows.example_NM < 0].any()
    assert not rows.loss_mask_NL[~covered].any()
    assert not rows.positions_NL[~covered].any()
    assert (rows.tokens_NL[~covered] == tokenizer.pad_id).all()


@given(EXAMPLES, st.integers(1, 60))
@settings(deadline=None)
def test_counts(tokenizer, examples, seq_len):
    rows = pack_examples(examples, tokenizer, seq_len)
    encoded = [encode_example(e, tokenizer) for e in examples]
    assert rows.num_examples == len(examples)
    assert rows.num_truncated == sum(len(t) > seq_len for t, _ in encoded)
    assert rows.longest == max(len(t) for t, _ in encoded)
    assert rows.num_tokens == sum(len(t[:seq_len]) for t, _ in encoded)
    assert rows.num_response_tokens == sum(m[:seq_len].sum() for _, m in encoded)


def test_truncated_example_has_no_end(tokenizer):
    example = Example((("user", "a"), ("assistant", "b" * 100)), "s", True)
    rows = pack_examples([example], tokenizer, 12)
    assert rows.num_truncated == 1 and not rows.num_scored
    assert rows.tokens_NL[0, -1] != tokenizer.end_id and rows.loss_mask_NL[0, -1]


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(30, 50))
@settings(deadline=None)
def test_best_fit_leaves_no_two_bins_that_fit_in_one(lengths, capacity):
    bins = best_fit(lengths, capacity)
    assert sorted(i for items in bins for i in items) == list(range(len(lengths)))
    loads = [sum(lengths[i] for i in items) for items in bins]
    assert all(0 < load <= capacity for load in loads)
    # No two bins could be one, so the number of bins is less than twice the fewest.
    smallest = sorted(loads)[:2]
    assert len(bins) < 2 or sum(smallest) > capacity


def test_best_fit_takes_the_tightest_bin():
    assert best_fit([6, 7, 3, 4], 10) == [[0, 3], [1, 2]]


def test_nothing_to_pack_is_refused(tokenizer):
    with pytest.raises(ValueError, match="no example"):
        pack_examples([], tokenizer, 8)


def example_rows(tokenizer):
    examples = [Example((("user", "a"), ("assistant", "b" * i)), "s") for i in range(5)]
    return pack_examples(examples, tokenizer, 16)


def test_rows_survive_the_disk(tokenizer, tmp_path):
    rows = example_rows(tokenizer)
    save_rows(rows, tmp_path / "deep" / "rows")
    save_rows(rows, tmp_path / "deep" / "rows")  # the second writer changes nothing
    loaded = load_rows(tmp_path / "deep" / "rows")
    for field in dataclasses.fields(rows):
        saved, read = getattr(rows, field.name), getattr(loaded, field.name)
        np.testing.assert_array_equal(saved, read, strict=True)
    assert isinstance(loaded.tokens_NL, np.memmap)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["rows"]


def test_hash_tells_rows_apart(tokenizer, tmp_path):
    rows = example_rows(tokenizer)
    save_rows(rows, tmp_path / "rows")
    assert hash_rows(load_rows(tmp_path / "rows")) == hash_rows(rows)
    for name in ("tokens_NL", "loss_mask_NL", "positions_NL", "scored_NM"):
        array = getattr(rows, name).copy()
        array[0, 0] = not array[0, 0]
        assert hash_rows(dataclasses.replace(rows, **{name: array})) != hash_rows(rows)


def test_interrupted_save_leaves_nothing(tokenizer, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(rows_module.json, "dumps", broken)
    with pytest.raises(OSError, match="disk full"):
        save_rows(example_rows(tokenizer), tmp_path / "rows")
    assert not list(tmp_path.iterdir())
