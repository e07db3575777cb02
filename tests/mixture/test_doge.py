"""DoGE against its formula in float64."""

import numpy as np
import pytest

from dcft_jax.mixture.doge import doge
from tests.mixture.gradient_feedback import feedback_of, make_gradients, normalised

PRIOR = np.array([0.1, 0.2, 0.3, 0.4])


def updated(rule, feedback, times=1):
    state = rule.init(PRIOR)
    for _ in range(times):
        state = rule.update(feedback, state)
    return np.asarray(rule.weights(state))


def scores(train, columns):
    """Of every ability: with these, but not with itself if they are all."""
    total = np.zeros(len(train))
    for k, g in enumerate(train):
        for j in columns:
            if j != k or len(columns) < len(train):
                total[k] += g @ train[j]
    return total / np.linalg.norm(train, axis=1).mean()


@pytest.mark.parametrize("times", [1, 3])
def test_updates_are_the_formula(times):
    train, _ = make_gradients(0)
    score = np.clip(scores(train, range(4)), -0.5, 5.0)
    assert np.ptp(score) > 0.5
    rule = doge(step_size=0.3, min_score=-0.5)
    expected = normalised(PRIOR * np.exp(0.3 * times * score))
    np.testing.assert_allclose(
        updated(rule, feedback_of(train), times), expected, rtol=1e-5
    )


def test_a_target_counts_itself():
    train, _ = make_gradients(1)
    score = np.clip(scores(train, [1, 2]), 0, 5)
    expected = normalised(PRIOR * np.exp(0.3 * score))
    found = updated(doge(step_size=0.3, target=[1, 2]), feedback_of(train))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    everything = updated(doge(target=range(4)), feedback_of(train))
    np.testing.assert_array_equal(everything, updated(doge(), feedback_of(train)))


def test_scores_are_clipped():
    train, _ = make_gradients(2)
    large = 1e3 * train
    raw = scores(large, range(4))
    assert np.abs(raw).min() > 5
    expected = normalised(PRIOR * np.exp(0.3 * np.clip(raw, 0, 5)))
    found = updated(doge(step_size=0.3), feedback_of(large))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_floor_is_mixed_in_and_fed_back():
    train, _ = make_gradients(3)
    score = np.clip(scores(train, range(4)), 0, 5)
    expected = PRIOR
    for _ in range(3):
        raw = normalised(expected * np.exp(0.3 * score))
        expected = 0.9 * raw + 0.1 / 4
    found = updated(doge(step_size=0.3, floor=0.1), feedback_of(train), times=3)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_unmeasured_ability_keeps_its_weight_and_is_no_partner():
    train, _ = make_gradients(4)
    gram = train @ train.T
    gram[2], gram[:, 2] = np.nan, np.nan
    found = updated(doge(step_size=0.3), feedback_of(train, gram_KK=gram))
    kept = [0, 1, 3]
    score = np.clip(scores(train[kept], range(3)), 0, 5)
    rest = 0.7 * normalised(PRIOR[kept] * np.exp(0.3 * score))
    np.testing.assert_allclose(found[2], 0.3, rtol=1e-6)
    np.testing.assert_allclose(found[kept], rest, rtol=1e-5)


def test_turning_space_or_the_order_of_abilities_does_not_matter():
    train, _ = make_gradients(5)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]
    base = updated(doge(), feedback_of(train))
    turned = updated(doge(), feedback_of(train @ turn))
    np.testing.assert_allclose(turned, base, rtol=1e-5)
    order = np.array([2, 0, 3, 1])
    rule = doge()
    state = rule.update(feedback_of(train[order]), rule.init(PRIOR[order]))
    np.testing.assert_allclose(rule.weights(state), base[order], rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"step_size": -1.0},
        {"min_score": 6.0},
        {"max_score": float("inf")},
        {"floor": 1.0},
        {"target": []},
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match=r"mixture\." + next(iter(options))):
        doge(**options)


def test_a_target_that_is_no_ability():
    with pytest.raises(ValueError, match=r"mixture\.target"):
        doge(target=[4]).init(PRIOR)
