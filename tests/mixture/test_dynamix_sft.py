"""DynamixSFT against equations 2 to 5 of its paper, in float64."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture import RULES, unmeasured

PRIOR = np.array([0.5, 0.3, 0.2])


def feedback(before, after):
    known = jnp.asarray(np.isfinite(before))
    before, after = jnp.asarray(before, jnp.float32), jnp.asarray(after, jnp.float32)
    arrays = dict(virtual_before_K=before, virtual_after_K=after, observed_K=known)
    return replace(unmeasured(len(before)), **arrays)


def run(rule, *sequence):
    state = rule.init(PRIOR)
    for one in sequence:
        state = jax.jit(rule.update)(one, state)
    return np.asarray(rule.weights(state))


def test_paper():
    rng = np.random.default_rng(0)
    before = rng.uniform(1, 3, (30, 3))
    after = before * rng.uniform(0.8, 1.05, (30, 3)) * [1.0, 0.95, 0.9]
    value = np.zeros(3)
    for pre, post in zip(before, after, strict=True):
        reward = (pre - post) / pre
        reward = (reward - reward.min()) / (reward.max() - reward.min())
        value = 0.95 * value + 0.05 * reward
    policy = PRIOR * np.exp(4 * value)
    expected = 0.7 * policy / policy.sum() + 0.3 / 3
    found = run(RULES["dynamix_sft"](), *map(feedback, before, after))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[2] / PRIOR[2] > 1.5 * found[0] / PRIOR[0]


def test_options():
    rule = RULES["dynamix_sft"](sharpness=2.0, smoothing=0.0, floor=0.0)
    # Relative decreases of 1/2, 0 and 1/4 scale to 1, 0 and 1/2.
    policy = PRIOR * np.exp([2.0, 0.0, 1.0])
    found = run(rule, feedback([2.0, 1.0, 4.0], [1.0, 1.0, 3.0]))
    np.testing.assert_allclose(found, policy / policy.sum(), rtol=1e-5)


def test_it_stays_around_the_prior_before_any_reward():
    expected = 0.7 * PRIOR + 0.1
    np.testing.assert_allclose(run(RULES["dynamix_sft"]()), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("before", "after"),
    [([2.0, np.nan, np.nan], [1.0, np.nan, np.nan]), ([2.0] * 3, [1.0] * 3)],
)
def test_a_single_reward_and_equal_ones_say_nothing(before, after):
    rule = RULES["dynamix_sft"]()
    found = run(rule, feedback(before, after))
    np.testing.assert_allclose(found, run(rule), rtol=1e-6)


def test_an_ability_measured_once_keeps_its_value():
    """It was best once and nobody looked again; the other two are as they were."""
    rule = RULES["dynamix_sft"](smoothing=0.5, floor=0.0)
    first = feedback([1.0, 1.0, 1.0], [0.9, 0.8, 0.7])
    later = feedback([1.0, 1.0, np.nan], [0.9, 0.8, np.nan])
    value = (1 - 0.5**5) * np.array([0.0, 0.5 / 31 * 1 + 30 / 31, 1.0])
    policy = PRIOR * np.exp(4 * value)
    found = run(rule, first, *[later] * 4)
    np.testing.assert_allclose(found, policy / policy.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(sharpness=-1.0), r"mixture.sharpness is -1.0, .*\[0, inf\)"),
        (dict(smoothing=1.0), r"mixture.smoothing is 1.0, .*\[0, 1\)"),
        (dict(floor=-0.1), r"mixture.floor is -0.1, .*\[0, 1\)"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RULES["dynamix_sft"](**options)
