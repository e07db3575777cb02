"""CoBa against its paper's formulas, in float64."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture import RULES, unmeasured

PRIOR = np.array([0.5, 0.3, 0.2])
INITIAL = np.array([3.2, 1.6, 2.1])
WINDOW, WARMUP, TAU = 6, 3, 5.0


def losses(number=25, seed=0):
    """`[T, K]`: a fast one, a slow one, and one that turns and diverges."""
    rng, t = np.random.default_rng(seed), np.arange(number)[:, None]
    columns = [3 * 0.9**t + 0.2, 1.5 - 0.01 * t, 2 - 0.08 * t + 0.005 * t**2]
    return np.hstack(columns) * np.exp(0.02 * rng.standard_normal((number, 3)))


def feedback(loss):
    return replace(
        unmeasured(3),
        val_loss_K=jnp.asarray(loss, jnp.float32),
        initial_loss_K=jnp.asarray(INITIAL, jnp.float32),
        observed_K=jnp.asarray(np.isfinite(loss)),
    )


def run(losses_TK):
    rule = RULES["coba"](window=WINDOW, warmup_updates=WARMUP, tau=TAU)
    state, seen = rule.init(PRIOR), []
    for loss in losses_TK:
        state = jax.jit(rule.update)(feedback(loss), state)
        seen.append(rule.weights(state))
    return np.array(seen)


def softmax(x):
    raised = np.exp(x - x.max())
    return raised / raised.sum()


def coba_of_the_paper(losses_TK):
    ratios, slopes, steepest, out = losses_TK / INITIAL, [], [], []
    for t in range(len(ratios)):
        if t < WARMUP:
            out.append(PRIOR)
            continue
        recent = ratios[max(0, t + 1 - WINDOW) : t + 1]
        slopes.append(np.polyfit(np.arange(len(recent)), recent, 1)[0])
        steepest.append(slopes[-1].max())
        past, top = np.array(slopes[-WINDOW:]), np.array(steepest[-WINDOW:])
        number = len(past)
        rcs = softmax(3 * past[-1] / np.abs(past[-1]).sum())
        acs = softmax(-number * past[-1] / np.abs(past).sum(axis=0))
        df = number * softmax(-TAU * number * top / np.abs(top).sum())[-1]
        df = min(1.0, df)
        w = PRIOR * (df * rcs + (1 - df) * acs)
        out.append(w / w.sum())
    return np.array(out)


@pytest.mark.parametrize("seed", [0, 1])
def test_paper(seed):
    found, expected = run(losses(seed=seed)), coba_of_the_paper(losses(seed=seed))
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    assert np.ptp(found[:, 2]) > 0.1


def test_a_diverging_ability_loses_and_the_slow_one_had_more_before():
    falling = np.linspace(1.0, 0.4, 12)
    smooth = np.stack([3 * falling, 1.6 - 0.01 * np.arange(12), 2.1 * falling], axis=1)
    before = run(smooth)[-1] / PRIOR
    assert before[1] > max(before[0], before[2])
    rising = smooth[-1] * (1 + np.linspace(0.02, 0.5, 5)[:, None] * [0, 1, 0])
    after = run(np.vstack([smooth, rising]))[-1] / PRIOR
    assert after[1] < before[1]


def test_gaps_are_fitted_at_the_time_of_their_measurement():
    """A straight line with holes has the slope of the line."""
    line = np.array([3.0, 1.6, 2.0]) - np.arange(10)[:, None] * [0.1, 0.02, 0.05]
    holes = line.copy()
    holes[[5, 7], 1] = np.nan
    np.testing.assert_allclose(run(holes)[-1], run(line)[-1], rtol=1e-3)


def test_an_ability_without_slopes_counts_as_average():
    """Average in the scores: below the slow one, above the fast one."""
    hidden = losses()
    hidden[:, 1] = np.nan
    weights = run(hidden)[8] / PRIOR
    assert min(weights[0], weights[2]) < weights[1] < max(weights[0], weights[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(window=1), "mixture.window is 1, expected an integer >= 2"),
        (dict(warmup_updates=0), "mixture.warmup_updates is 0, .*>= 1"),
        (dict(tau=0.0), r"mixture.tau is 0.0, expected a number in \(0, inf\)"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RULES["coba"](**options)
