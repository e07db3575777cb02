"""The record of losses: what it holds after any number of records."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture.history import empty_history, known_entries, record


def filled(num_records, capacity=8, num_abilities=2):
    def one(history, n):
        position_K = jnp.full(num_abilities, n, jnp.float32)
        return record(history, position_K, 100.0 + position_K, 0.1 * position_K), None

    history = empty_history(num_abilities, capacity)
    return jax.lax.scan(one, history, jnp.arange(1, num_records + 1))[0]


@pytest.mark.parametrize("num_records", [1, 2, 7, 8, 9, 15, 16, 17, 100, 1000])
def test_entries_span_the_run_evenly_and_end_with_the_newest(num_records):
    history = filled(num_records)
    position = np.asarray(history.position_TK)[:, 0]
    entries = position[: int(history.num_entries)]
    assert np.all(np.isnan(position[int(history.num_entries) :]))
    assert entries[0] == 1
    assert entries[-1] == num_records
    gaps = np.diff(entries)
    assert np.all(gaps[:-1] == int(history.stride))
    assert np.all(gaps[-1:] <= int(history.stride))
    assert len(entries) >= min(num_records, 4)
    np.testing.assert_array_equal(history.loss_TK[:, 0], 100 + position)
    np.testing.assert_allclose(history.stderr_TK[:, 1], 0.1 * position, rtol=1e-6)


def test_up_to_the_capacity_nothing_is_dropped():
    entries = np.asarray(filled(7).position_TK)[:7, 0]
    np.testing.assert_array_equal(entries, np.arange(1, 8))


def test_an_unmeasured_ability_has_no_entry_and_loses_none():
    history = empty_history(2, capacity=4)
    for n in range(1, 6):
        loss_K = jnp.array([1.0 * n, jnp.nan if n in (2, 5) else 10.0 * n])
        history = record(history, jnp.full(2, float(n)), loss_K, jnp.zeros(2))
    # Of five records the first and the third stay, and the newest there is.
    np.testing.assert_array_equal(history.position_TK[:3, 0], [1, 3, 5])
    np.testing.assert_array_equal(history.position_TK[:3, 1], [1, 3, 4])
    np.testing.assert_array_equal(history.loss_TK[:3, 1], [10, 30, 40])
    assert np.asarray(known_entries(history)).sum() == 6


def test_an_entry_may_lack_an_ability():
    history = empty_history(2)
    for n in range(1, 4):
        loss_K = jnp.array([1.0 * n, jnp.nan if n == 2 else 10.0 * n])
        history = record(history, jnp.full(2, float(n)), loss_K, jnp.zeros(2))
    np.testing.assert_array_equal(history.loss_TK[:3, 1], [10, np.nan, 30])
    np.testing.assert_array_equal(history.loss_TK[:3, 0], [1, 2, 3])


def test_the_last_measurement_stays_on_the_way_to_the_next_entry():
    history = empty_history(2, capacity=4)
    for n in range(1, 9):
        history = record(history, jnp.full(2, float(n)), jnp.ones(2), jnp.zeros(2))
    before = history
    assert int(before.age) > 0
    history = record(history, jnp.full(2, 9.0), jnp.array([2.0, jnp.nan]), jnp.ones(2))
    last = int(history.num_entries) - 1
    np.testing.assert_array_equal(history.loss_TK[last], [2.0, 1.0])
    np.testing.assert_array_equal(history.position_TK[last], [9.0, 8.0])


def test_nothing_measured_is_no_record():
    before = filled(5)
    after = record(before, jnp.full(2, 6.0), jnp.array([jnp.nan, jnp.inf]), jnp.ones(2))
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("capacity", [2, 7])
def test_bad_capacity(capacity):
    with pytest.raises(ValueError, match="capacity"):
        empty_history(2, capacity)


def test_no_buffer_twice():
    history = jax.tree.leaves(empty_history(2))
    assert len({leaf.unsafe_buffer_pointer() for leaf in history}) == len(history)
