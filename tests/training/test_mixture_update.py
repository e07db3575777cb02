"""From scores to a moved mixture: pairing, missing numbers, caps, what is kept."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.evaluation.losses import Scores
from dcft_jax.mixture import RULES
from dcft_jax.training.composition import weights_and_shares
from dcft_jax.training.measured import measure
from dcft_jax.training.mixture_update import make_feedback, update_mixture
from dcft_jax.training.state import init_mixture
from tests.training.compositions import compose

K, N = 2, 4
NAN = np.nan


def scores(loss_sum_N, scored: bool = True) -> Scores:
    loss_sum_N = np.asarray(loss_sum_N, np.float32)
    evaluated_N = np.isfinite(loss_sum_N)
    return Scores(
        loss_sum_N,
        2.0 * evaluated_N.astype(np.float32),
        np.zeros(len(loss_sum_N), np.float32),
        scored & evaluated_N,
    )


def evaluate(composition, mixture, sums, step, extra=None):
    measured = measure(
        [scores(x) for x in sums],
        np.asarray(mixture.val_loss_sum_KN),
        np.asarray(mixture.best_loss_sum_KN),
        composition.tier_KN,
        composition.size_KT.shape[1],
    )
    update = jax.jit(lambda *x: update_mixture(composition, *x))
    after = update(mixture, measured, extra or {}, jnp.int32(step))
    return measured, after


FIRST = [[4.0, 8, 2, 6], [2.0] * 3]


def test_first_evaluation_has_no_progress_and_sets_the_initial_loss():
    composition = compose()
    mixture = init_mixture(composition, N)
    measured, after = evaluate(composition, mixture, FIRST, 0)
    assert np.isnan(measured.progress_K).all() and np.isnan(measured.rise_K).all()
    np.testing.assert_allclose(measured.loss_K, [2.5, 1.0])
    np.testing.assert_allclose(after.initial_loss_K, [2.5, 1.0])
    feedback = make_feedback(composition, after, measured, {}, jnp.int32(0))
    assert np.isnan(feedback.train_loss_K).all()
    assert (after.last_update, after.next_update, after.num_updates) == (0, 5, 1)
    np.testing.assert_array_equal(after.best_step_K, [0, 0])


def test_progress_is_paired_by_example_and_initial_loss_stays():
    composition = compose()
    _, mixture = evaluate(composition, init_mixture(composition, N), FIRST, 0)
    second, mixture = evaluate(composition, mixture, [[3.0, 7, 1, 5], [2.0] * 3], 5)
    np.testing.assert_allclose(second.progress_K, [0.5, 0.0], atol=1e-7)
    np.testing.assert_allclose(second.progress_stderr_K, 0.0, atol=1e-6)
    np.testing.assert_allclose(mixture.initial_loss_K, [2.5, 1.0])
    assert (mixture.last_update, mixture.next_update) == (5, 10)


def test_the_best_evaluation_of_each_ability_is_remembered():
    composition = compose()
    mixture = init_mixture(composition, N)
    path = [
        (FIRST, [0, 0]),
        ([[3.0, 7, 1, 5], [3.0] * 3], [5, 0]),
        ([[4.0, 8, 2, 6], [1.0] * 3], [5, 10]),
    ]
    for i, (sums, best) in enumerate(path):
        measured, mixture = evaluate(composition, mixture, sums, 5 * i)
        np.testing.assert_array_equal(mixture.best_step_K, best)
    # Both are compared with their own best: 0.5 and -0.5 nats per token.
    np.testing.assert_allclose(measured.rise_K, [0.5, -0.5])


def test_rotated_examples_are_paired_with_those_seen_before():
    composition = compose()
    sums = [
        [[4.0, 8, NAN, NAN], [2.0, 2, NAN]],
        [[NAN, 6, 2, NAN], [NAN, 1, 1]],
    ]
    _, mixture = evaluate(composition, init_mixture(composition, N), sums[0], 0)
    measured, mixture = evaluate(composition, mixture, sums[1], 5)
    np.testing.assert_allclose(measured.loss_K, [2.0, 0.5])
    np.testing.assert_allclose(measured.progress_K, [1.0, 0.5])
    np.testing.assert_allclose(mixture.best_loss_sum_KN[0], [4, 6, 2, NAN])


def test_a_loss_that_is_nan_is_not_hidden():
    broken = dataclasses.replace(
        scores([1.0, 1.0]), loss_sum_N=np.array([1.0, NAN], np.float32)
    )
    unknown = np.full((1, 2), NAN)
    measured = measure([broken], unknown, unknown, np.zeros((1, 2), np.int8), 1)
    assert np.isnan(measured.loss_K).all()


def test_nothing_scored_is_no_accuracy():
    unknown = np.full((1, 1), NAN)
    tier = np.zeros((1, 1), np.int8)
    measured = measure([scores([1.0], scored=False)], unknown, unknown, tier, 1)
    assert np.isnan(measured.accuracy_K).all()


def test_tiers_are_measured_from_the_examples_they_have():
    composition = compose(
        size_KT=np.array([[6, 4], [20, 0]]),
        tier_KN=np.array([[0, 0, 1, 1], [0, 0, 0, -1]], np.int8),
    )
    mixture = init_mixture(composition, N)
    measured, mixture = evaluate(composition, mixture, FIRST, 0)
    np.testing.assert_allclose(measured.loss_KT, [[3.0, 2.0], [1.0, NAN]])
    np.testing.assert_allclose(mixture.initial_loss_KT, [[3.0, 2.0], [1.0, NAN]])
    # By size inside the ability, in the order of the components.
    np.testing.assert_allclose(mixture.shares_C, [0.3, 0.2, 0.5])


def test_repetition_caps_slots_and_weight():
    # 100 steps of 4 slots; ability 0 has 10 rows and may repeat them twice.
    composition = compose(max_epochs_K=np.array([2.0, 0.0]))
    mixture = init_mixture(composition, N)
    assert float(mixture.shares_C[0]) <= 20 / 400
    np.testing.assert_allclose(mixture.weights_K, mixture.shares_C, rtol=1e-5)
    used = dataclasses.replace(mixture, rows_C=jnp.array([20, 100], jnp.int32))
    weights_K, shares_C = weights_and_shares(
        composition, used.rule, used.tier_rule, used.rows_C, used.credit_C, jnp.int32(9)
    )
    np.testing.assert_allclose(shares_C, [0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(weights_K, [0.0, 1.0], atol=1e-6)


@pytest.mark.parametrize("actuator", ["sample", "reweight", "both"])
def test_actuators_share_slots_by_weight_or_by_prior(actuator):
    rule = RULES["proportional"]([1.0, 3.0])
    composition = compose(rule=rule, actuator=actuator)
    mixture = init_mixture(composition, N)
    np.testing.assert_allclose(mixture.weights_K, [0.25, 0.75])
    expected = [0.5, 0.5] if actuator == "reweight" else [0.25, 0.75]
    np.testing.assert_allclose(mixture.shares_C, expected)


def test_references_are_given_or_fitted():
    given = np.array([0.5, NAN], np.float32)
    steps = np.arange(1, 41)
    curve = 1.0 + 2.0 * steps**-0.7  # of both abilities, per token
    for references, second in (("given", NAN), ("fitted", 1.0)):
        composition = compose(given_reference_K=given, references=references)
        mixture = init_mixture(composition, N)
        update = jax.jit(
            lambda *x, c=composition: (
                update_mixture(c, *x),
                make_feedback(c, x[0], *x[1:]).reference_loss_K,
            )
        )
        noise = np.random.default_rng(0).normal(0, 1e-4, len(steps))
        for step, loss in zip(steps, curve + noise, strict=True):
            measured = measure(
                [scores([2 * loss] * 4), scores([2 * loss] * 3)],
                np.asarray(mixture.val_loss_sum_KN),
                np.asarray(mixture.best_loss_sum_KN),
                composition.tier_KN,
                1,
            )
            mixture, reference_K = update(mixture, measured, {}, jnp.int32(step))
        np.testing.assert_allclose(reference_K, [0.5, second], atol=0.05)


def test_gramian_is_averaged_and_freed_of_noise():
    composition = compose()
    _, mixture = evaluate(composition, init_mixture(composition, N), FIRST, 0)
    sums = dataclasses.replace(
        mixture.train,
        gram_KK=jnp.array([[8.0, 2.0], [2.0, 6.0]]),
        gram_count_KK=jnp.array([[2.0, 1.0], [1.0, 2.0]]),
        signal_K=jnp.array([3.0, 0.0]),
        noise_K=jnp.array([1.0, 0.0]),
        noise_count_K=jnp.array([1.0, 0.0]),  # of ability 1 there was one slot
    )
    mixture = dataclasses.replace(mixture, train=sums)
    measured, _ = evaluate(composition, mixture, FIRST, 5)
    feedback = make_feedback(composition, mixture, measured, {}, jnp.int32(5))
    np.testing.assert_allclose(feedback.gram_KK, [[3.0, 2.0], [2.0, 3.0]])
    np.testing.assert_allclose(feedback.grad_noise_K, [1.0, NAN])


def test_what_a_rule_asked_for_reaches_it():
    composition = compose()
    mixture = init_mixture(composition, N)
    measured, _ = evaluate(composition, mixture, FIRST, 0)
    extra = {"transfer_KK": jnp.eye(K)}
    feedback = make_feedback(composition, mixture, measured, extra, jnp.int32(0))
    np.testing.assert_array_equal(feedback.transfer_KK, np.eye(K))


def test_a_rule_may_set_the_next_update():
    composition = compose(rule=RULES["aioli"](lp_steps=3, lp_rounds=1, update_steps=7))
    _, mixture = evaluate(composition, init_mixture(composition, N), FIRST, 0)
    assert mixture.next_update == 3
