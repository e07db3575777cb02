"""Counts that follow the weights, with the bound that the module promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcft_jax.mixture import allocate

many = settings(deadline=None, max_examples=60)


def worst_credit(num_abilities):
    return (num_abilities - 1) / 2


def play(weights_TK, num_slots):
    """Counts and credits over time; checks what holds in every step."""
    credit = np.zeros(weights_TK.shape[1], np.float32)
    counts_TK, credits_TK = [], []
    for weights in weights_TK:
        counts, credit = allocate(weights, credit, num_slots)
        assert counts.sum() == num_slots
        share = num_slots * weights.astype(np.float64) / weights.sum(dtype=np.float64)
        assert np.all(counts >= np.floor(share)) and np.all(
            counts <= np.floor(share) + 1
        )
        counts_TK.append(counts)
        credits_TK.append(credit)
    return np.array(counts_TK), np.array(credits_TK)


def random_weights(seed, num_steps, num_abilities, concentration):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(num_abilities, concentration), num_steps)
    return weights.astype(np.float32)


@many
@given(
    seed=st.integers(0, 10_000),
    num_abilities=st.integers(1, 16),
    num_slots=st.integers(1, 40),
    concentration=st.sampled_from([0.05, 0.3, 1.0, 30.0]),
    constant=st.booleans(),
)
def test_counts_track_any_weights(
    seed, num_abilities, num_slots, concentration, constant
):
    weights = random_weights(seed, 150, num_abilities, concentration)
    weights = np.tile(weights[0], (150, 1)) if constant else weights
    counts, credits = play(weights, num_slots)
    exact = weights.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    owed = np.cumsum(num_slots * exact - counts, axis=0)
    np.testing.assert_allclose(credits, owed, atol=1e-4)
    assert np.abs(owed).max() <= worst_credit(num_abilities) + 1e-4
    if num_abilities <= 3:
        assert np.abs(owed).max() <= 1 + 1e-4
    elif constant:
        assert np.abs(owed).max() <= 1.5


@pytest.mark.parametrize("num_abilities", [2, 3, 4, 6, 8])
def test_an_adversary_reaches_no_more_than_the_bound(num_abilities):
    """Weights always equal over whoever is owed most: the classical worst case."""
    worst = 0.0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        credit = np.zeros(num_abilities, np.float32)
        for _ in range(60):
            num_slots = int(rng.integers(1, num_abilities + 1))
            size = int(rng.integers(num_slots, num_abilities + 1))
            weights = np.zeros(num_abilities)
            weights[np.argsort(-credit, kind="stable")[:size]] = 1 / size
            _, credit = allocate(weights, credit, num_slots)
            worst = max(worst, np.abs(credit).max())
    assert worst <= worst_credit(num_abilities) + 1e-5
    credit, last = np.zeros(num_abilities, np.float32), 0.0
    for size in range(num_abilities, 1, -1):
        weights = np.zeros(num_abilities)
        weights[np.argsort(-credit, kind="stable")[:size]] = 1 / size
        _, credit = allocate(weights, credit, 1)
        last = credit.max()
    harmonic = sum(1 / j for j in range(2, num_abilities + 1))
    np.testing.assert_allclose(last, harmonic, atol=1e-5)


def test_ties_go_to_the_lower_index_and_nothing_starves():
    credit, order = np.zeros(4, np.float32), []
    for _ in range(8):
        counts, credit = allocate(np.full(4, 0.25), credit, 1)
        order.append(int(np.argmax(counts)))
    assert order == [0, 1, 2, 3, 0, 1, 2, 3]


def test_the_credit_round_trips_through_float32_exactly():
    weights = random_weights(3, 400, 5, 1.0)
    counts, credits = play(weights, 8)
    assert credits.dtype == np.float32
    restored = np.frombuffer(credits[199].tobytes(), np.float32)
    for t in range(200, 400):
        again, restored = allocate(weights[t], restored, 8)
        np.testing.assert_array_equal(again, counts[t])


def test_rounded_weights_do_not_build_up_credit():
    weights = np.full(3, 1 / 3, np.float32) + np.float32(3e-8)
    _, credits = play(np.tile(weights, (20_000, 1)), 7)
    assert np.abs(credits.sum(axis=1)).max() < 1e-6
    assert np.abs(credits).max() <= 1 + 1e-4


def test_permuting_abilities_permutes_counts():
    weights = random_weights(5, 100, 6, 1.0)
    order = np.random.default_rng(0).permutation(6)
    counts, _ = play(weights, 9)
    permuted, _ = play(weights[:, order], 9)
    np.testing.assert_array_equal(permuted, counts[:, order])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, 0.4], [0.0, 0.0], 4), "simplex"),
        (([1.5, -0.5], [0.0, 0.0], 4), "simplex"),
        (([np.nan, 0.5], [0.0, 0.0], 4), "simplex"),
        (([0.5, 0.5], [0.0], 4), "credit"),
        (([0.5, 0.5], [0.0, np.inf], 4), "credit"),
        (([0.5, 0.5], [0.0, 0.0], 0), "num_slots is 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    weights, credit, num_slots = arguments
    with pytest.raises(ValueError, match=message):
        allocate(np.array(weights), np.array(credit, np.float32), num_slots)
