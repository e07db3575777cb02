import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcft_jax.data.batches import eval_batches, next_batch
from dcft_jax.data.rows import ROW_FIELDS, Rows
from dcft_jax.data.streams import ability_seed, make_stream


def numbered_rows(num_rows, seq_len=4):
    """Row n is full of n, so that a row tells which it is."""
    full = np.repeat(np.arange(num_rows, dtype=np.int32)[:, None], seq_len, axis=1)
    index_NM = np.arange(num_rows, dtype=np.int32)[:, None]
    return Rows(
        tokens_NL=full,
        loss_mask_NL=full % 2 == 0,
        segments_NL=np.ones_like(full),
        positions_NL=full * 0 + np.arange(seq_len, dtype=np.int32),
        scored_NM=index_NM % 3 == 0,
        example_NM=index_NM,
        num_truncated=0,
        longest=seq_len,
    )


def ids(stream, indices):
    return [int(stream[i]["tokens"][0]) for i in indices]


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=10)
def test_every_epoch_is_a_permutation(num_rows, seed):
    stream = make_stream(numbered_rows(num_rows), seed)
    for epoch in (0, 1, 1000):
        indices = range(epoch * num_rows, (epoch + 1) * num_rows)
        assert sorted(ids(stream, indices)) == list(range(num_rows))


def test_epochs_and_abilities_have_orders_of_their_own():
    rows = numbered_rows(50)
    orders = set()
    for ability in ("math", "code"):
        stream = make_stream(rows, ability_seed(0, ability))
        for epoch in range(4):
            orders.add(tuple(ids(stream, range(epoch * 50, epoch * 50 + 50))))
    assert len(orders) == 8
    assert ability_seed(0, "math") != ability_seed(1, "math")


def test_stream_is_a_pure_function_of_seed_and_index():
    rows = numbered_rows(30)
    forward = ids(make_stream(rows, 5), range(100))
    stream = make_stream(rows, 5)
    assert ids(stream, reversed(range(100))) == forward[::-1]


def test_random_access_does_not_walk():
    stream = make_stream(numbered_rows(1000), 0)
    start = time.monotonic()
    ids(stream, range(10**15, 10**15 + 20))
    assert time.monotonic() - start < 5


def test_items_are_rows():
    rows = numbered_rows(5)
    item = make_stream(rows, 0)[7]
    assert item is not None
    n = item["tokens"][0]
    assert set(item) == set(ROW_FIELDS)
    for name in ROW_FIELDS:
        np.testing.assert_array_equal(item[name], getattr(rows, f"{name}_NL")[n])


def test_no_rows_is_refused():
    with pytest.raises(ValueError, match="at least one train row"):
        make_stream(numbered_rows(0), 0)


SIZES = (40, 70, 200)
HISTORY = st.lists(
    st.tuples(*[st.integers(0, 4) for _ in SIZES]).filter(any), min_size=1, max_size=8
)


@given(HISTORY, st.integers(1, 3))
@settings(deadline=None, max_examples=25)
def test_no_history_of_the_mixture_moves_a_stream(history, rows_per_slot):
    streams = [make_stream(numbered_rows(n), s) for s, n in enumerate(SIZES)]
    position_K = np.zeros(len(SIZES), np.int64)
    consumed = [[] for _ in SIZES]
    for counts_K in history:
        batch, position_K = next_batch(
            streams, position_K, np.array(counts_K), rows_per_slot
        )
        expected = np.repeat(np.arange(len(SIZES)), counts_K)
        np.testing.assert_array_equal(batch["ability_S"], expected)
        assert batch["tokens_SBL"].shape == (sum(counts_K), rows_per_slot, 4)
        for k, slot_B in zip(expected, batch["tokens_SBL"][:, :, 0], strict=True):
            consumed[k] += slot_B.tolist()
    for k, stream in enumerate(streams):
        assert position_K[k] == len(consumed[k])
        assert consumed[k] == ids(stream, range(len(consumed[k])))


BEFORE_K = np.array([5, 0, 2**40])


@pytest.mark.parametrize("processes", [1, 2, 3, 6])
def test_any_number_of_processes_see_one_global_batch(processes):
    streams = [make_stream(numbered_rows(n), n) for n in SIZES]
    counts_K = np.array([1, 3, 2])
    whole, after_K = next_batch(streams, BEFORE_K, counts_K, 2)
    np.testing.assert_array_equal(after_K, BEFORE_K + 2 * counts_K)
    owner_SB = np.random.default_rng(0).integers(0, processes, (6, 2))
    for p in range(processes):
        part, position_K = next_batch(streams, BEFORE_K, counts_K, 2, owner_SB == p)
        np.testing.assert_array_equal(part["ability_S"], whole["ability_S"])
        np.testing.assert_array_equal(position_K, after_K)
        for name in (f"{field}_SBL" for field in ROW_FIELDS):
            mine = np.where((owner_SB == p)[..., None], whole[name], 0)
            np.testing.assert_array_equal(part[name], mine.astype(whole[name].dtype))


def test_only_the_needed_rows_are_read():
    read = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, index):
            read.append((self.name, index))
            return numbered_rows(1)[0]

    needed_SB = np.array([[False, True], [False, False], [True, True]])
    streams = [Stream("a"), Stream("b")]
    next_batch(streams, np.array([4, 8]), np.array([1, 2]), 2, needed_SB)
    assert read == [("a", 5), ("b", 10), ("b", 11)]


def test_batch_types():
    streams = [make_stream(numbered_rows(3), 0)]
    batch, _ = next_batch(streams, np.zeros(1, np.int64), np.array([2]), 1)
    types = {name: array.dtype.name for name, array in batch.items()}
    assert types == {
        "tokens_SBL": "int32",
        "loss_mask_SBL": "bool",
        "segments_SBL": "int32",
        "positions_SBL": "int32",
        "ability_S": "int32",
    }


def test_bad_batches_are_refused():
    streams = [make_stream(numbered_rows(3), 0)]
    with pytest.raises(ValueError, match="one of each per ability"):
        next_batch(streams, np.zeros(2), np.array([1, 1]), 1)
    with pytest.raises(ValueError, match="none negative"):
        next_batch(streams, np.zeros(1), np.array([-1]), 1)
    with pytest.raises(ValueError, match=r"needed_SB of shape \(2, 1\).*\(1, 1\)"):
        next_batch(streams, np.zeros(1), np.array([1]), 1, np.ones((2, 1), bool))


@given(st.integers(1, 9), st.integers(1, 12))
@settings(deadline=None)
def test_eval_batches_hold_every_row_once(num_rows, rows_per_batch):
    rows = numbered_rows(num_rows)
    batches = list(eval_batches(rows, rows_per_batch))
    assert all(len(a) == rows_per_batch for b in batches for a in b.values())
    for name in batches[0]:
        joined = np.concatenate([batch[name] for batch in batches])
        np.testing.assert_array_equal(joined[:num_rows], getattr(rows, name))
        empty = -1 if name == "example_NM" else 0
        assert (joined[num_rows:] == empty).all()
    assert len(batches) == -(-num_rows // rows_per_batch)
