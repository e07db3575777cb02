"""Skill-It against its paper's formula, in float64."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture import RULES, unmeasured
from dcft_jax.mixture.rule import TRANSFER

PRIOR = np.array([0.5, 0.3, 0.2])
GRAPH = np.array([[1.0, 0.5, 0.5], [0.0, 1.0, 0.0], [0.0, 0.5, 1.0]])
LOSSES = np.array([[2.0, 1.0, 3.0], [1.5, 0.9, 2.5], [1.2, 1.1, 2.0], [1.0, 0.8, 1.9]])


def feedback(loss, transfer=None):
    now = replace(
        unmeasured(3),
        val_loss_K=jnp.asarray(loss, jnp.float32),
        observed_K=jnp.asarray(np.isfinite(loss)),
    )
    if transfer is None:
        return now
    return replace(now, transfer_KK=jnp.asarray(transfer, jnp.float32))


def run(rule, *sequence):
    state = rule.init(PRIOR)
    for one in sequence:
        state = jax.jit(rule.update)(one, state)
    return np.asarray(rule.weights(state))


def softmax_from_prior(logits):
    raised = PRIOR * np.exp(logits)
    return raised / raised.sum()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_given_graph(number):
    """p_i ~ exp(eta sum_j A_ij sum of the last w losses of j): rows are trained."""
    logits = np.zeros(3)
    for i in range(3):
        for j in range(3):
            for loss in LOSSES[max(0, number - 3) : number]:
                logits[i] += 0.4 * GRAPH[i, j] * loss[j]
    rule = RULES["skill_it"](graph=GRAPH.tolist(), step_size=0.4)
    assert rule.needs == frozenset()
    found = run(rule, *map(feedback, LOSSES[:number]))
    np.testing.assert_allclose(found, softmax_from_prior(logits), rtol=1e-5)


def test_a_window_of_one_forgets():
    rule = RULES["skill_it"](graph=GRAPH.tolist(), window=1)
    found = run(rule, *map(feedback, LOSSES))
    np.testing.assert_array_equal(found, run(rule, feedback(LOSSES[-1])))


# mix-val (row) x train (column): ability 0 helps 1, 1 hurts 2, 2 hurts itself.
TRANSFER_KK = np.array([[3.0, 0.0, 1.0], [2.0, 2.0, -1.0], [0.0, -5.0, -1.0]])


def test_graph_from_the_transfer():
    """Each loss is divided among those who lower it; a lone one counts for itself."""
    loss = LOSSES[0]
    helped = np.array([3 / 4 * loss[0] + 1 / 2 * loss[1], 1 / 2 * loss[1], 0.0])
    helped[2] = 1 / 4 * loss[0] + loss[2]
    rule = RULES["skill_it"]()
    assert rule.needs == {TRANSFER}
    for scale in (1.0, 1e-6):
        found = run(rule, feedback(loss, scale * TRANSFER_KK))
        np.testing.assert_allclose(found, softmax_from_prior(0.2 * helped), rtol=1e-5)


def test_without_a_transfer_the_graph_is_kept():
    rule = RULES["skill_it"](window=1)
    loss = LOSSES[0]
    np.testing.assert_allclose(
        run(rule, feedback(loss)), softmax_from_prior(0.2 * loss), rtol=1e-5
    )
    first, unknown = TRANSFER_KK.copy(), np.full((3, 3), np.nan)
    kept = run(rule, feedback(loss, first), feedback(loss, unknown))
    np.testing.assert_array_equal(kept, run(rule, feedback(loss, first)))
    partly = np.where([[False], [True], [False]], np.nan, 7 * first)
    kept = run(rule, feedback(loss, first), feedback(loss, partly))
    np.testing.assert_allclose(kept, run(rule, feedback(loss, first)), rtol=1e-6)


def test_an_ability_measured_less_often_counts_with_its_mean_loss():
    sequence = [LOSSES[0], [1.5, np.nan, 2.5], [1.2, np.nan, 2.0]]
    total = np.array([2.0 + 1.5 + 1.2, 3 * 1.0, 3.0 + 2.5 + 2.0])
    rule = RULES["skill_it"]()
    found = run(rule, *map(feedback, np.array(sequence)))
    np.testing.assert_allclose(found, softmax_from_prior(0.2 * total), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(graph=[[1.0, 0.0]]), "mixture.graph is .*square matrix"),
        (dict(graph=[[1.0, -1.0], [0.0, 1.0]]), "mixture.graph is .*>= 0"),
        (dict(graph=[[1.0, np.nan], [0.0, 1.0]]), "mixture.graph is .*finite"),
        (dict(window=0), "mixture.window is 0, expected an integer >= 1"),
        (dict(step_size=-0.1), r"mixture.step_size is -0.1, .*\[0, inf\)"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RULES["skill_it"](**options)


def test_a_graph_of_another_number_of_abilities_is_refused():
    with pytest.raises(ValueError, match=r"graph is \(2, 2\), expected 3 x 3"):
        RULES["skill_it"](graph=[[1, 0], [0, 1]]).init(PRIOR)
