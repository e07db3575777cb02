"""PiKE against its formula in float64."""

import numpy as np
import pytest

from dcft_jax.mixture.pike import pike
from tests.mixture.gradient_feedback import feedback_of, make_gradients, normalised

PRIOR = np.array([0.1, 0.2, 0.3, 0.4])
NOISE = np.array([5.0, 1.0, 0.2, 3.0])
LOSS = np.array([2.0, 1.5, 0.3, 1.0])


def updated(rule, feedback, times=1):
    state = rule.init(PRIOR)
    for _ in range(times):
        state = rule.update(feedback, state)
    return np.asarray(rule.weights(state))


def feedback(seed=0, **values):
    train, _ = make_gradients(seed)
    values = {"grad_noise_K": NOISE, "train_loss_K": LOSS, **values}
    return np.sum(train**2, axis=1), feedback_of(train, **values)


def test_plain_updates_are_the_formula():
    square, known = feedback()
    expected = PRIOR
    for _ in range(2):
        step = 0.02 * square - 0.3 / 2 * expected * NOISE
        expected = normalised(expected * np.exp(step))
    found = updated(pike(norm_step=0.02, noise_step=0.3), known, times=2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_balanced_updates_weigh_gradients_by_the_tilted_losses():
    square, known = feedback()
    tilted = 2.0 * normalised(np.exp(2.0 * LOSS))
    step = tilted**2 * (0.02 * square - 0.3 / 2 * PRIOR * NOISE)
    expected = normalised(PRIOR * np.exp(step))
    found = updated(pike(norm_step=0.02, noise_step=0.3, tilt=2.0), known)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_tilting_is_plain_where_losses_are_equal():
    _, known = feedback(train_loss_K=np.full(4, 1.3))
    balanced = updated(pike(tilt=4.0), known)  # y = 4 / K = 1
    np.testing.assert_allclose(balanced, updated(pike(), known), rtol=1e-5)


def test_noise_lowers_and_gradients_raise():
    _, quiet = feedback(grad_noise_K=[1.0, 1.0, 1.0, 1.0])
    _, noisy = feedback(grad_noise_K=[1.0, 9.0, 1.0, 1.0])
    assert updated(pike(), noisy)[1] < updated(pike(), quiet)[1]


def test_a_square_norm_below_zero_is_zero():
    train, _ = make_gradients(0)
    gram = train @ train.T
    low, zero = gram.copy(), gram.copy()
    low[1, 1], zero[1, 1] = -3.0, 0.0
    values = dict(grad_noise_K=NOISE)
    np.testing.assert_array_equal(
        updated(pike(), feedback_of(train, gram_KK=low, **values)),
        updated(pike(), feedback_of(train, gram_KK=zero, **values)),
    )


@pytest.mark.parametrize("missing", ["grad_noise_K", "train_loss_K"])
def test_an_unmeasured_ability_keeps_its_weight(missing):
    value = {"grad_noise_K": NOISE, "train_loss_K": LOSS}[missing].copy()
    value[2] = np.nan
    square, known = feedback(**{missing: value})
    found = updated(pike(norm_step=0.02, noise_step=0.3, tilt=2.0), known)
    kept = np.array([0, 1, 3])
    among = kept if missing == "train_loss_K" else np.arange(4)
    tilted = 2.0 * np.exp(2.0 * LOSS) / np.exp(2.0 * LOSS[among]).sum()
    step = tilted**2 * (0.02 * square - 0.3 / 2 * PRIOR * NOISE)
    np.testing.assert_allclose(found[2], 0.3, rtol=1e-6)
    expected = 0.7 * normalised((PRIOR * np.exp(step))[kept])
    np.testing.assert_allclose(found[kept], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"norm_step": -1.0}, {"noise_step": float("nan")}, {"tilt": 0.0}]
)
def test_bad_options(options):
    with pytest.raises(ValueError, match=r"mixture\." + next(iter(options))):
        pike(**options)
