"""GRAPE against its formula in float64, and on a problem with a known answer."""

import jax
import numpy as np
import pytest

from dcft_jax.mixture.grape import grape
from tests.mixture.gradient_feedback import feedback_of, make_gradients, normalised

PRIOR = np.array([0.1, 0.2, 0.3, 0.4])
LOSS = np.array([2.0, 1.5, 0.3, 1.0])


def test_updates_are_the_formula():
    train, val = make_gradients(0)
    rule = grape(task_step=0.4, mixture_step=0.1, task_floor=0.01)
    state = rule.init(PRIOR)
    tasks, weights = np.full(4, 0.25), PRIOR
    for _ in range(3):
        state = rule.update(feedback_of(train, val, val_loss_K=LOSS), state)
        log_gradient = val / LOSS[:, None]  # of log L_j
        update = weights @ train
        tasks = normalised(tasks * np.exp(-0.4 * log_gradient @ update))
        tasks = 0.99 * tasks + 0.01 / 4
        weights = normalised(weights * np.exp(0.1 * train @ (tasks @ log_gradient)))
        np.testing.assert_allclose(np.exp(state.log_tasks_K), tasks, rtol=1e-4)
        np.testing.assert_allclose(rule.weights(state), weights, rtol=1e-4)


def test_the_unit_of_a_loss_does_not_matter():
    train, val = make_gradients(1)
    unit = np.array([1.0, 10.0, 0.1, 3.0])
    rule = grape()
    states = [
        rule.update(
            feedback_of(train, val * u[:, None], val_loss_K=LOSS * u), rule.init(PRIOR)
        )
        for u in (np.ones(4), unit)
    ]
    np.testing.assert_allclose(*map(rule.weights, states), rtol=1e-4)


def test_without_a_task_step_it_is_the_mean_of_all_targets():
    train, val = make_gradients(2)
    rule = grape(task_step=0.0, mixture_step=0.1)
    state = rule.update(feedback_of(train, val, val_loss_K=LOSS), rule.init(PRIOR))
    help_K = train @ (val / LOSS[:, None]).mean(axis=0)
    expected = normalised(PRIOR * np.exp(0.1 * help_K))
    np.testing.assert_allclose(rule.weights(state), expected, rtol=1e-5)


def test_what_is_not_measured_keeps_its_weights():
    train, val = make_gradients(3)
    transfer = val @ train.T
    transfer[:, 1] = np.nan  # no train gradient of 1
    loss = LOSS.copy()
    loss[2] = np.nan  # no mix-val loss of 2
    rule = grape(task_step=0.4, mixture_step=0.1, task_floor=0.0)
    known = feedback_of(train, transfer_KK=transfer, val_loss_K=loss)
    state = rule.update(known, rule.init(PRIOR))
    rows, columns = [0, 1, 3], [0, 2, 3]
    rate = (val @ train.T / LOSS[:, None])[np.ix_(rows, columns)]
    tasks = np.full(4, 0.25)
    raw = np.exp(-0.4 * rate @ normalised(PRIOR[columns]))
    tasks[rows] = 0.75 * normalised(raw)
    np.testing.assert_allclose(np.exp(state.log_tasks_K), tasks, rtol=1e-5)
    weights = PRIOR.copy()
    raw = PRIOR[columns] * np.exp(0.1 * rate.T @ normalised(tasks[rows]))
    weights[columns] = 0.8 * normalised(raw)
    np.testing.assert_allclose(rule.weights(state), weights, rtol=1e-5)
    hidden = feedback_of(train, val, val_loss_K=LOSS, observed_K=np.zeros(4, bool))
    same = rule.weights(rule.update(hidden, rule.init(PRIOR)))
    np.testing.assert_allclose(same, PRIOR, rtol=1e-6)


def test_it_finds_the_mixture_that_improves_all_alike():
    # Gradients that do not interact: rates are p_k |g_k|^2 / L_k, and the best worst
    # rate has p_k ~ L_k / |g_k|^2.
    train = np.diag([1.0, 2.0, 0.5])
    loss = np.array([1.0, 2.0, 0.5])
    known = feedback_of(train, train, val_loss_K=loss)
    rule = grape(task_step=0.05, mixture_step=0.02, task_floor=0.0)

    def one(state, _):
        state = rule.update(known, state)
        return state, rule.weights(state)

    path = jax.lax.scan(one, rule.init(np.ones(3) / 3), length=20_000)[1]
    # A minimax by two exponentiated gradients circles its answer: the mean is there.
    expected = normalised(loss / np.diag(train) ** 2)
    np.testing.assert_allclose(path.mean(axis=0), expected, atol=0.02)


@pytest.mark.parametrize(
    "options", [{"task_step": -1.0}, {"mixture_step": -1.0}, {"task_floor": 1.0}]
)
def test_bad_options(options):
    with pytest.raises(ValueError, match=r"mixture\." + next(iter(options))):
        grape(**options)
