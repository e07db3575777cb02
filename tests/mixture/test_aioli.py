"""Aioli: its sweeps, its algebra in float64, and a transfer matrix to recover."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture import unmeasured
from dcft_jax.mixture.aioli import aioli

PRIOR = np.array([0.2, 0.3, 0.5])
LAW = np.array([[0.5, 0.1, 0.05], [0.2, 0.3, -0.1], [0.0, 0.15, 0.4]])  # A
SMALL = dict(lp_rounds=2, lp_steps=4, update_steps=50, step_size=0.7)


def feedback(progress_K, observed=True):
    progress_K = jnp.asarray(progress_K, jnp.float32)
    known_K = jnp.full(len(progress_K), observed)
    return replace(
        unmeasured(len(progress_K)), progress_K=progress_K, observed_K=known_K
    )


def mixtures(one_hot, size=3):
    rest = (1 - one_hot) / (size - 1)
    return np.where(np.eye(size, dtype=bool), one_hot, rest)


def sweep(rule, state, law=LAW, num_parts=6):
    """Trains a sweep on a linear problem; the mixtures it was trained on, too."""
    update, weights_of, seen = jax.jit(rule.update), jax.jit(rule.weights), []
    for _ in range(num_parts):
        weights = np.asarray(weights_of(state), np.float64)
        assert int(rule.interval(state)) == 4
        seen.append(weights)
        state = update(feedback(law @ weights), state)
    return state, np.array(seen)


def normalised_law(law):
    law = law - min(law.min(), 0)
    return law / law.sum()


@pytest.mark.parametrize("one_hot", [0.625, 1.0, 0.4])
def test_a_sweep_trains_on_every_smoothed_mixture_once_a_round(one_hot):
    rule = aioli(one_hot=one_hot, **SMALL)
    state, seen = sweep(rule, rule.init(PRIOR))
    for one_round in (seen[:3], seen[3:]):
        order = np.argmax(one_round, axis=1)
        assert sorted(order) == [0, 1, 2]
        np.testing.assert_allclose(one_round, mixtures(one_hot)[order], rtol=1e-5)
    assert int(rule.interval(state)) == 50


@pytest.mark.parametrize("one_hot", [0.625, 1.0, 0.4])
def test_it_recovers_the_transfer_matrix_and_steps_on_its_column_sums(one_hot):
    rule = aioli(one_hot=one_hot, **SMALL)
    state, _ = sweep(rule, rule.init(PRIOR))
    expected = normalised_law(LAW)
    np.testing.assert_allclose(state.law_KK, expected, atol=1e-5)
    raw = PRIOR * np.exp(0.7 * expected.sum(axis=0))
    np.testing.assert_allclose(rule.weights(state), raw / raw.sum(), rtol=1e-5)


def test_drops_of_the_rounds_are_averaged():
    rng = np.random.default_rng(0)
    rule = aioli(one_hot=0.625, **SMALL)
    state = rule.init(PRIOR)
    drop = np.zeros((3, 3))
    for _ in range(6):
        column = int(np.argmax(rule.weights(state)))
        progress = LAW[:, column] + 0.1 * rng.standard_normal(3)
        drop[:, column] += progress / 2
        state = rule.update(feedback(progress), state)
    law = np.stack([np.linalg.solve(mixtures(0.625), row) for row in drop])
    np.testing.assert_allclose(state.law_KK, normalised_law(law), atol=1e-5)


@pytest.mark.parametrize("smoothing", [None, 0.25])
def test_weights_accumulate_or_follow_the_average(smoothing):
    rule = aioli(smoothing=smoothing, **SMALL)
    state = rule.init(PRIOR)
    log_weights, average = np.log(PRIOR), None
    for law in (LAW, LAW.T, LAW[::-1]):
        state, _ = sweep(rule, state, law)
        new = normalised_law(law)
        if smoothing is None:
            log_weights = log_weights + 0.7 * new.sum(axis=0)
        else:
            average = new if average is None else 0.25 * average + 0.75 * new
            log_weights = np.log(PRIOR) + 0.7 * average.sum(axis=0)
        expected = np.exp(log_weights) / np.exp(log_weights).sum()
        np.testing.assert_allclose(rule.weights(state), expected, rtol=1e-4)
        state = rule.update(feedback(np.ones(3)), state)  # after `update_steps`
        assert int(rule.interval(state)) == 4


def test_orders_differ_between_sweeps_rounds_and_seeds():
    orders = set()
    for seed in range(3):
        rule = aioli(seed=seed, **SMALL)
        state = rule.init(np.full(3, 1 / 3))
        for _ in range(3):
            state, seen = sweep(rule, state)
            orders |= {tuple(np.argmax(part, axis=1)) for part in (seen[:3], seen[3:])}
            state = rule.update(feedback(np.ones(3)), state)
    assert len(orders) >= 4


def test_a_part_that_measured_nothing_is_trained_again():
    rule = aioli(**SMALL)
    state = rule.init(PRIOR)
    for nothing in (feedback([np.nan] * 3), feedback([1.0] * 3, observed=False)):
        after = rule.update(nothing, state)
        jax.tree.map(np.testing.assert_array_equal, after, state)


def test_an_ability_that_was_not_measured_has_no_say():
    rule = aioli(**SMALL)
    state = rule.init(PRIOR)
    for _ in range(6):
        progress = LAW @ np.asarray(rule.weights(state))
        state = rule.update(feedback([progress[0], np.nan, progress[2]]), state)
    expected = normalised_law(LAW[[0, 2]]).sum(axis=0)
    raw = PRIOR * np.exp(0.7 * expected)
    np.testing.assert_allclose(rule.weights(state), raw / raw.sum(), rtol=1e-5)


def test_the_unit_of_the_loss_and_a_common_drop_of_zero_do_not_matter():
    rule = aioli(**SMALL)
    ends = [sweep(rule, rule.init(PRIOR), unit * LAW)[0] for unit in (1.0, 100.0)]
    np.testing.assert_allclose(*map(rule.weights, ends), rtol=1e-5)
    still, _ = sweep(rule, rule.init(PRIOR), 0 * LAW)
    np.testing.assert_allclose(rule.weights(still), PRIOR, rtol=1e-5)


def test_one_ability_has_all_the_weight():
    rule = aioli(**SMALL)
    state = rule.init(np.ones(1))
    for _ in range(9):
        np.testing.assert_allclose(rule.weights(state), [1.0])
        state = rule.update(feedback([0.3]), state)


@pytest.mark.parametrize("broken", [1e38, -1e38])
def test_broken_measurements_leave_weights_on_the_simplex(broken):
    rule = aioli(**SMALL)

    def one(state, noise_K):
        state = rule.update(feedback(noise_K), state)
        return state, rule.weights(state)

    noise = np.random.default_rng(0).standard_normal((2000, 3))
    noise[::5, 1] = broken
    path = jax.lax.scan(one, rule.init(PRIOR), jnp.asarray(noise, jnp.float32))[1]
    assert np.all(np.asarray(path) >= 0)
    np.testing.assert_allclose(path.sum(axis=1), 1, atol=1e-5)


def test_no_buffer_twice():
    leaves = jax.tree.leaves(aioli().init(jnp.asarray(PRIOR, jnp.float32)))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


@pytest.mark.parametrize(
    "options",
    [
        {"step_size": -1.0},
        {"lp_rounds": 0},
        {"lp_steps": 0.5},
        {"update_steps": 0},
        {"one_hot": 1.1},
        {"smoothing": 1.0},
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match=r"mixture\." + next(iter(options))):
        aioli(**options)


def test_mixtures_that_do_not_differ():
    with pytest.raises(ValueError, match=r"mixture\.one_hot"):
        aioli(one_hot=1 / 3).init(PRIOR)
