"""Rules that do not look at measurements."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture import RULES, unmeasured

UNIFORM = np.ones(3) / 3


def at_step(step, observed=True):
    feedback = unmeasured(3, step)
    return replace(feedback, observed_K=jnp.full(3, observed))


def test_proportional():
    rule = RULES["proportional"]([10, 30, 60])
    np.testing.assert_allclose(rule.weights(rule.init(UNIFORM)), [0.1, 0.3, 0.6])


def test_temperature():
    rule = RULES["temperature"]([100, 400, 2500])
    expected = np.array([10, 20, 50]) / 80
    np.testing.assert_allclose(rule.weights(rule.init(UNIFORM)), expected, rtol=1e-6)
    flat = RULES["temperature"]([100, 400, 2500], temperature=1e6)
    np.testing.assert_allclose(flat.weights(flat.init(UNIFORM)), UNIFORM, rtol=1e-5)


def test_dmt_trains_specialists_and_then_general_with_few_of_them():
    """GSM8K-RFT, ShareGPT, Code Alpaca: 0.59 % of the second stage is specialist."""
    sizes = np.array([110_142, 86_060, 20_022])
    rule = RULES["dmt"](sizes, num_steps=1000, general=[1])
    state = rule.init(UNIFORM)
    first = np.array([110_142, 0, 20_022]) / (110_142 + 20_022)
    second = np.array([110_142 / 256, 86_060, 20_022 / 256])
    second /= second.sum()
    np.testing.assert_allclose(1 - second[1], 0.0059, atol=5e-5)
    for step, expected in [(0, first), (499, first), (500, second), (900, second)]:
        state = jax.jit(rule.update)(at_step(step), state)
        np.testing.assert_allclose(rule.weights(state), expected, rtol=1e-5)
    assert rule.weights(rule.init(UNIFORM))[1] == 0


def test_dmt_never_returns_to_the_first_stage():
    rule = RULES["dmt"]([1, 1, 2], 10, [0], specialist_share=0.0, switch_at=0.3)
    state = rule.update(at_step(3), rule.init(UNIFORM))
    np.testing.assert_array_equal(rule.weights(state), [1, 0, 0])
    np.testing.assert_array_equal(
        rule.weights(rule.update(at_step(2), state)), [1, 0, 0]
    )


def walk(seed, number=2000, **options):
    rule, prior = RULES["random_walk"](seed, **options), np.array([0.5, 0.3, 0.2])

    def one(state, _):
        state = rule.update(at_step(0), state)
        return state, rule.weights(state)

    return np.asarray(
        jax.jit(lambda: jax.lax.scan(one, rule.init(prior), None, number))()[1]
    )


def test_random_walk_steps_span_the_step_size():
    """Twice the walk, so the noise is seen through the formula."""
    log_K = np.log(walk(0, 50, step_size=0.4, anchor=0.5, floor=0.0))
    pulled_K = 0.8 * log_K[:-1] + 0.2 * np.log([0.5, 0.3, 0.2])
    score_K = (log_K[1:] - pulled_K) / 0.4
    np.testing.assert_allclose(np.ptp(score_K, axis=1), 1, atol=1e-4)
    assert np.std(score_K[:, 0] - score_K.mean(axis=1)) > 0.1


def test_random_walk_stays_around_the_prior_and_above_the_floor():
    weights = walk(0, floor=0.3)
    assert weights.min() >= 0.1
    assert weights.max() <= 0.8
    log_ratio = np.log(walk(0, floor=0.0) / [0.5, 0.3, 0.2])
    log_ratio -= log_ratio.mean(axis=1, keepdims=True)
    # Steps of 0.5 times a score of variance v, forgotten at the rate 0.5.
    rng = np.random.default_rng(0)
    noise = rng.random((100_000, 3))
    noise = (noise - noise.mean(axis=1, keepdims=True)) / np.ptp(noise, axis=1)[:, None]
    expected = 0.5 * noise.std() / np.sqrt(1 - 0.5**2)
    np.testing.assert_allclose(log_ratio.std(), expected, rtol=0.1)
    assert np.abs(log_ratio.mean(axis=0)).max() < 0.15


def test_random_walk_depends_on_the_seed_and_the_number_of_updates_only():
    np.testing.assert_array_equal(walk(1, 5), walk(1, 5))
    assert np.abs(walk(1, 5) - walk(2, 5)).max() > 0.01
    rule = RULES["random_walk"](1)
    state = rule.init(UNIFORM)
    skipped = rule.update(at_step(7, observed=False), state)
    np.testing.assert_array_equal(rule.weights(skipped), rule.weights(state))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("proportional", dict(sizes_K=[1, 0]), "sizes of the abilities must be posi"),
        ("temperature", dict(sizes_K=[1, 2], temperature=0.0), "temperature is 0.0"),
        ("dmt", dict(general=[]), r"general is \[\], expected distinct indices"),
        ("dmt", dict(general=[0, 1, 2]), r"general is \[0, 1, 2\]"),
        ("dmt", dict(general=[0, 0]), r"general is \[0, 0\]"),
        ("dmt", dict(general=[3]), r"general is \[3\].* of 3 abilities"),
        ("dmt", dict(specialist_share=1.5), r"specialist_share is 1.5.*\[0, 1\]"),
        ("dmt", dict(switch_at=1.0), r"mixture.switch_at is 1.0.*\(0, 1\)"),
        ("random_walk", dict(seed=0, anchor=0.0), r"step_size \* anchor is 0.0"),
        ("random_walk", dict(seed=0, floor=1.0), r"mixture.floor is 1.0"),
        ("random_walk", dict(seed=0, step_size=-1.0), r"mixture.step_size is -1.0"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    if name == "dmt":
        options = dict(sizes_K=[1, 2, 3], num_steps=10, general=[0]) | options
    with pytest.raises(ValueError, match=message):
        RULES[name](**options)


@pytest.mark.parametrize("name", ["proportional", "temperature", "dmt"])
def test_sizes_of_another_number_of_abilities_are_refused(name):
    options = dict(num_steps=10, general=[0]) if name == "dmt" else {}
    with pytest.raises(ValueError, match="4 sizes, expected one per ability, 3"):
        RULES[name]([1, 2, 3, 4], **options).init(UNIFORM)
