"""Group DRO and its kin against their papers' formulas, in float64."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture import RULES, unmeasured

PRIOR = np.array([0.5, 0.3, 0.2])


def feedback(observed=(True, True, True), **fields):
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in fields.items()}
    return replace(unmeasured(3), observed_K=jnp.asarray(observed), **arrays)


def run(rule, *sequence):
    state = rule.init(PRIOR)
    for one in sequence:
        state = jax.jit(rule.update)(one, state)
    return np.asarray(rule.weights(state))


def ascended(w, score, c=0.0):
    raised = w * np.exp(score)
    return (1 - c) * raised / raised.sum() + c / len(w)


def test_doremi_follows_and_averages():
    excess = np.array([[0.3, 0.0, 1.2], [0.5, 0.1, 0.2], [0.0, 0.9, 0.0]])
    w, seen = PRIOR, []
    for row in excess:
        w = ascended(w, 0.7 * row, c=0.01)
        seen.append(w)
    sequence = [feedback(excess_loss_K=row) for row in excess]
    options = dict(step_size=0.7, smoothing=0.01)
    found = run(RULES["doremi"](**options), *sequence)
    np.testing.assert_allclose(found, seen[-1], rtol=1e-5)
    found = run(RULES["doremi"](**options, average=True), *sequence)
    np.testing.assert_allclose(found, np.mean(seen, axis=0), rtol=1e-5)
    before = RULES["doremi"](average=True)
    np.testing.assert_allclose(before.weights(before.init(PRIOR)), PRIOR, rtol=1e-6)


def test_doremi_reuses_the_last_excess_of_an_ability_that_was_not_measured():
    """As the authors' code does for a domain that is not in the batch."""
    first, second = np.array([0.3, 0.1, 1.2]), np.array([0.5, np.nan, 0.2])
    used = np.array([0.5, 0.1, 0.2])
    expected = ascended(ascended(PRIOR, first, 1e-3), used, 1e-3)
    sequence = [feedback(excess_loss_K=row) for row in (first, second)]
    np.testing.assert_allclose(run(RULES["doremi"](), *sequence), expected, rtol=1e-5)


def test_doremi_counts_an_ability_that_was_never_measured_as_average():
    row = feedback(excess_loss_K=[0.5, np.nan, 0.1])
    expected = ascended(PRIOR, np.array([0.5, 0.3, 0.1]), 1e-3)
    np.testing.assert_allclose(run(RULES["doremi"](), row), expected, rtol=1e-5)


LOSSES = dict(
    val_loss_K=[2.0, 1.5, 0.8],
    reference_loss_K=[1.0, 1.4, 1.0],
    initial_loss_K=[3.0, 2.0, 1.5],
)


def test_sheared():
    now = feedback(**LOSSES)
    expected = ascended(PRIOR, np.array([1.0, 0.1, 0.0]), 1e-4)
    np.testing.assert_allclose(run(RULES["sheared"](), now), expected, rtol=1e-5)
    expected = ascended(PRIOR, 2 * np.array([1.0, 0.1, -0.2]), 1e-4)
    found = run(RULES["sheared"](step_size=2.0, clip=False), now)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_velocitune():
    """Velocities 1/2, 1/6, and one below its target: 0."""
    expected = ascended(PRIOR, np.array([0.5, 0.1 / 0.6, 0.0]))
    found = run(RULES["velocitune"](), feedback(**LOSSES))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_velocitune_clips_and_ignores_what_had_nothing_to_learn():
    now = feedback(
        val_loss_K=[9.0, 9.0, 1.6],
        reference_loss_K=[1.0, 2.0, 1.0],
        initial_loss_K=[3.0, 2.0, 2.0],
    )
    expected = ascended(PRIOR, np.array([1.0, 0.0, 0.6]))
    np.testing.assert_allclose(run(RULES["velocitune"](), now), expected, rtol=1e-5)


@pytest.mark.parametrize("unknown", ["val", "reference", "initial"])
def test_velocitune_needs_all_three_losses(unknown):
    losses = {key: list(value) for key, value in LOSSES.items()}
    losses[f"{unknown}_loss_K"][2] = np.nan
    score = np.array([0.5, 0.1 / 0.6, (0.5 + 0.1 / 0.6) / 2])
    found = run(RULES["velocitune"](), feedback(**losses))
    np.testing.assert_allclose(found, ascended(PRIOR, score), rtol=1e-5)


def test_auto_mix_align_does_not_feed_the_smoothing_back():
    score, c = np.array([1.0, 0.1, 0.0]), 0.2
    q = ascended(ascended(PRIOR, 1.5 * score), 1.5 * score)
    expected = (1 - c) * q + c / 3
    now = feedback(**LOSSES)
    found = run(RULES["auto_mix_align"](step_size=1.5, smoothing=c), now, now)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    fed_back = ascended(ascended(PRIOR, 1.5 * score, c), 1.5 * score, c)
    assert np.abs(found - fed_back).max() > 0.005


@pytest.mark.parametrize("curvature", [[1.0, 1.0], [4.0, 1.0]])
def test_auto_mix_align_finds_the_best_worst_excess(curvature):
    """Two parabolas `a_k (x - c_k)^2`: at the minimax both excesses are equal."""
    rule = RULES["auto_mix_align"](step_size=0.05, smoothing=0.0)
    a, best = np.array(curvature), np.array([1.0, 2.0])
    state, update = rule.init(np.ones(2) / 2), jax.jit(rule.update)
    for _ in range(3000):
        w = np.asarray(rule.weights(state), np.float64)
        x = w[1] * a[1] / (w @ a)  # centres 0 and 1
        excess = a * (x - np.array([0.0, 1.0])) ** 2
        one = replace(
            unmeasured(2),
            val_loss_K=jnp.asarray(best + excess, jnp.float32),
            reference_loss_K=jnp.asarray(best, jnp.float32),
            observed_K=jnp.ones(2, bool),
        )
        state = update(one, state)
    root = np.sqrt(a)
    np.testing.assert_allclose(x, root[1] / root.sum(), atol=2e-3)


@pytest.mark.parametrize("name", ["doremi", "sheared", "velocitune", "auto_mix_align"])
def test_bad_options_are_refused(name):
    with pytest.raises(ValueError, match=r"mixture.step_size is -1, .*\[0, inf\)"):
        RULES[name](step_size=-1)
    if name != "velocitune":
        with pytest.raises(ValueError, match=r"mixture.smoothing is 1.0, .*\[0, 1\)"):
            RULES[name](smoothing=1.0)
