"""From scores to feedback: pairing, missing numbers, first evaluation."""

import jax.numpy as jnp
import numpy as np

from dcft_jax.evaluation.losses import Scores
from dcft_jax.mixture import RULES
from dcft_jax.training.composition import make_feedback, measure, update_mixture
from dcft_jax.training.state import init_mixture

K, N = 2, 4


def scores(loss_sum_N, scored: bool = True) -> Scores:
    size = len(loss_sum_N)
    return Scores(
        np.asarray(loss_sum_N, np.float32),
        np.full(size, 2.0, np.float32),
        np.zeros(size, np.float32),
        np.full(size, scored),
    )


def fresh():
    rule = RULES["static"]()
    return rule, init_mixture(rule, jnp.full(K, 0.5), N)


def test_first_evaluation_has_no_progress_and_sets_the_initial_loss():
    rule, mixture = fresh()
    measured = measure(
        [scores([4.0] * 4), scores([2.0] * 3)], np.asarray(mixture.val_loss_sum_KN)
    )
    assert np.isnan(measured.progress_K).all()
    np.testing.assert_allclose(measured.loss_K, [2.0, 1.0])
    feedback = make_feedback(
        mixture, measured, np.full(K, np.nan), np.ones(K), jnp.int32(0)
    )
    np.testing.assert_allclose(feedback.initial_loss_K, [2.0, 1.0])
    assert np.isnan(feedback.train_loss_K).all()
    after = update_mixture(
        rule, mixture, measured, np.full(K, np.nan), np.ones(K), jnp.int32(0)
    )
    assert after.last_update == 0
    np.testing.assert_allclose(after.initial_loss_K, [2.0, 1.0])


def test_progress_is_paired_by_example_and_initial_loss_stays():
    rule, mixture = fresh()
    first = measure(
        [scores([4.0, 8, 2, 6]), scores([2.0] * 3)], np.full((K, N), np.nan)
    )
    mixture = update_mixture(
        rule, mixture, first, np.full(K, np.nan), np.ones(K), jnp.int32(0)
    )
    second = measure(
        [scores([3.0, 7, 1, 5]), scores([2.0] * 3)], np.asarray(mixture.val_loss_sum_KN)
    )
    np.testing.assert_allclose(second.progress_K, [0.5, 0.0], atol=1e-7)
    np.testing.assert_allclose(second.progress_stderr_K, 0.0, atol=1e-6)
    mixture = update_mixture(
        rule, mixture, second, np.full(K, np.nan), np.ones(K), jnp.int32(5)
    )
    np.testing.assert_allclose(mixture.initial_loss_K, [2.5, 1.0])
    assert mixture.last_update == 5


def test_nothing_scored_is_no_accuracy():
    measured = measure([scores([1.0], scored=False)], np.full((1, 1), np.nan))
    assert np.isnan(measured.accuracy_K).all()
