"""ODM against its paper and its released code, in float64."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture import RULES, unmeasured

PRIOR = np.array([0.5, 0.3, 0.2])
LOSSES = np.random.default_rng(0).uniform(0.3, 3.0, (40, 3))


def feedback(loss):
    known = jnp.asarray(np.isfinite(loss))
    loss = jnp.asarray(loss, jnp.float32)
    return replace(unmeasured(len(loss)), train_loss_K=loss, observed_K=known)


def run(rule, losses, prior=PRIOR):
    state, seen = rule.init(prior), []
    for loss in losses:
        state = jax.jit(rule.update)(feedback(loss), state)
        seen.append(rule.weights(state))
    return np.array(seen)


def softmax(x):
    raised = np.exp(x - x.max())
    return raised / raised.sum()


def exploration(t, k=3):
    return 1 / k if t == 0 else min(1 / k, np.sqrt(np.log(k) / (k * t)))


@pytest.mark.parametrize("importance_weighted", [False, True])
def test_paper(importance_weighted):
    options = dict(smoothing=0.8, warmup_updates=0)
    reward, w, seen = np.zeros(3), PRIOR, []
    for t, loss in enumerate(LOSSES, start=1):
        gained = loss / w if importance_weighted else loss
        reward = 0.8 * reward + 0.2 * gained
        policy = softmax(exploration(t - 1) * reward)
        w = (1 - 3 * exploration(t)) * policy + exploration(t)
        seen.append(w)
    rule = RULES["odm"](**options, importance_weighted=importance_weighted)
    found = run(rule, LOSSES)
    np.testing.assert_allclose(found, seen, rtol=1e-5)
    assert np.ptp(found[-1]) > 0.003


def test_released():
    """R follows exp(loss), the weights R; the code's second normalisation is idle."""
    reward, seen = np.zeros(3), []
    for t, loss in enumerate(LOSSES, start=1):
        reward = 0.5 * reward + 0.5 * np.exp(loss)
        w = (1 - 3 * exploration(t)) * reward / reward.sum() + exploration(t)
        seen.append(w / w.sum())
    found = run(RULES["odm"]("released", warmup_updates=0), LOSSES)
    np.testing.assert_allclose(found, seen, rtol=1e-5)


def test_warm_up_keeps_the_prior_and_measures():
    cold = run(RULES["odm"](warmup_updates=0), LOSSES)
    warm = run(RULES["odm"](warmup_updates=7), LOSSES)
    np.testing.assert_allclose(warm[:7], np.tile(PRIOR, (7, 1)), rtol=1e-6)
    np.testing.assert_array_equal(warm[7:], cold[7:])


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_an_ability_measured_rarely_is_judged_by_its_losses(variant):
    """With equal losses, being measured once instead of 40 times changes nothing."""
    losses = np.full((40, 3), 1.3)
    losses[1:, 1] = np.nan
    found = run(RULES["odm"](variant), losses)[-1]
    np.testing.assert_allclose(found, 1 / 3, atol=1e-5)


def test_importance_weights_reward_being_rare():
    """Why they are off: the weights of equal abilities should not matter."""
    losses = np.full((1, 3), 1.0)
    plain = RULES["odm"](warmup_updates=0, smoothing=0.0)
    weighted = RULES["odm"](warmup_updates=0, smoothing=0.0, importance_weighted=True)
    state = weighted.update(feedback(losses[0]), weighted.init(PRIOR))
    np.testing.assert_allclose(state.average_K, 1 / PRIOR, rtol=1e-6)
    state = plain.update(feedback(losses[0]), plain.init(PRIOR))
    np.testing.assert_allclose(state.average_K, 1, rtol=1e-6)


def test_high_entropy_attracts_the_released_variant():
    """The known flaw: the perplexity of an ability that cannot be learnt."""
    losses = np.tile([0.5, 0.5, 6.0], (300, 1))
    assert run(RULES["odm"]("released"), losses)[-1][2] > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(variant="code"), "mixture.variant is 'code', expected one of"),
        (dict(smoothing=1.0), r"mixture.smoothing is 1.0, .*\[0, 1\)"),
        (dict(warmup_updates=-1), "mixture.warmup_updates is -1, .*integer >= 0"),
        (
            dict(variant="released", importance_weighted=True),
            'importance_weighted is True, expected False for variant "released"',
        ),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RULES["odm"](**options)
