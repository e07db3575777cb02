"""What weights do to the slots and to the objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcft_jax.mixture import ACTUATORS, allocate, objective_weights, sampling_shares

WEIGHTS = np.array([0.05, 0.25, 0.7], np.float32)
PRIOR = np.array([0.2, 0.3, 0.5], np.float32)
applied_in = jax.jit(objective_weights, static_argnums=0)


def play(actuator, weights_K, shares_K, num_slots, num_steps):
    """The objective of every step of a run with constant weights, float64 `[T, K]`."""
    credit_K = np.zeros(len(weights_K), np.float32)
    applied_TK, present_TK = [], []
    for _ in range(num_steps):
        counts_K, credit_K = allocate(shares_K, credit_K, num_slots)
        ability_S = np.repeat(np.arange(len(counts_K)), counts_K)
        applied_K = applied_in(actuator, weights_K, shares_K, ability_S)
        applied_TK.append(np.asarray(applied_K, np.float64))
        present_TK.append(counts_K > 0)
    return np.array(applied_TK), np.array(present_TK)


@pytest.mark.parametrize("actuator", ACTUATORS)
def test_shares_are_the_weights_or_the_prior(actuator):
    shares = sampling_shares(actuator, jnp.asarray(WEIGHTS), jnp.asarray(PRIOR))
    expected = PRIOR if actuator == "reweight" else WEIGHTS
    np.testing.assert_array_equal(shares, expected)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), num_slots=st.sampled_from([1, 3, 8]))
@pytest.mark.parametrize("actuator", ACTUATORS)
def test_the_applied_weight_is_the_weight_on_average(actuator, seed, num_slots):
    rng = np.random.default_rng(seed)
    weights_K, prior_K = rng.dirichlet(np.full(3, 0.7), 2).astype(np.float32)
    shares_K = np.asarray(sampling_shares(actuator, weights_K, prior_K))
    num_steps = 200
    applied_TK, present_TK = play(actuator, weights_K, shares_K, num_slots, num_steps)
    average_K = np.mean(applied_TK * present_TK, axis=0)
    # The number of slots or steps with the ability is off by at most the credit, 1.
    tolerance_K = np.maximum(applied_TK.max(axis=0), 1 / num_slots) / num_steps
    assert np.all(np.abs(average_K - weights_K) <= tolerance_K + 1e-6)


def test_without_the_correction_rare_abilities_lose_weight():
    _, present_TK = play("both", WEIGHTS, WEIGHTS, 4, 800)
    naive = np.mean(present_TK * WEIGHTS, axis=0)
    np.testing.assert_allclose(naive, [4 * 0.05**2, 0.25, 0.7], rtol=0.02)


def test_a_weight_of_nothing_is_applied_as_nothing():
    weights = np.array([0.0, 0.05, 0.25, 0.7], np.float32)
    applied = applied_in("both", weights, weights, np.array([1, 2, 3, 3]))
    np.testing.assert_array_equal(applied, np.float32([0.0, 0.25, 0.25, 0.7]))


def test_sampling_counts_the_slots_that_are_there():
    applied = applied_in("sample", WEIGHTS, WEIGHTS, np.array([2, 0, 2, 1]))
    np.testing.assert_array_equal(applied, [0.25, 0.25, 0.5])


def test_reweighting_divides_by_the_share_that_is_sampled():
    applied = applied_in("reweight", WEIGHTS, PRIOR, np.array([1, 2]))
    np.testing.assert_allclose(applied, [0.05 / 0.4, 0.25 / 0.6, 0.7], rtol=1e-6)
