"""An earlier run's weights, from a summary.json made by hand."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture import RULES, unmeasured
from dcft_jax.mixture.replay import load_path

NAMES = ("code", "chat", "maths")
NUM_STEPS = 100
# Weights that hold for 10, 20, 40 and 30 steps.
PATH = [
    [0, [0.2, 0.3, 0.5]],
    [10, [0.5, 0.25, 0.25]],
    [30, [0.1, 0.1, 0.8]],
    [70, [0.4, 0.4, 0.2]],
]
LENGTHS = np.array([10, 20, 40, 30])
MEAN = LENGTHS @ np.array([weights for _, weights in PATH]) / NUM_STEPS


@pytest.fixture
def run(tmp_path):
    summary = dict(
        abilities={name: {} for name in NAMES}, num_steps=NUM_STEPS, weights_path=PATH
    )
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    return str(tmp_path)


def follow(rule, every=10):
    """The weights in force at every step of a run that evaluates so often."""
    update = jax.jit(rule.update)
    state, weights = rule.init(np.ones(3, np.float32) / 3), []
    for step in range(NUM_STEPS):
        if step % every == 0:
            feedback = replace(unmeasured(3), step=jnp.int32(step))
            state = update(feedback, state)
        weights.append(np.asarray(rule.weights(state)))
    return np.array(weights)


def replayed(run, mode, seed=0):
    return RULES["replay"](run, NAMES, NUM_STEPS, seed, mode)


def test_the_mean_is_over_steps_and_never_moves(run):
    weights = follow(replayed(run, "mean"))
    np.testing.assert_allclose(weights, np.tile(MEAN, (NUM_STEPS, 1)), rtol=1e-6)


def test_the_path_is_that_of_the_run(run):
    weights = follow(replayed(run, "path"))
    expected = np.repeat([w for _, w in PATH], LENGTHS, axis=0)
    np.testing.assert_array_equal(weights, np.float32(expected))


def test_weights_whose_sum_is_rounded_stay_as_they_were(run, tmp_path):
    logged = np.float32([1 / 3, 1 / 7, 11 / 21]) * np.float32(1 + 2e-7)
    summary = json.loads((tmp_path / "summary.json").read_text())
    summary["weights_path"] = [[0, logged.tolist()]]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    weights = follow(replayed(run, "path"))
    np.testing.assert_array_equal(weights, np.tile(logged, (NUM_STEPS, 1)))


def test_shuffling_keeps_the_average_and_not_the_order(run):
    paths = [follow(replayed(run, "shuffled", seed)) for seed in range(4)]
    rows = sorted(np.repeat([w for _, w in PATH], LENGTHS, axis=0).tolist())
    for weights in paths:
        np.testing.assert_allclose(sorted(weights.tolist()), rows, rtol=1e-6)
        np.testing.assert_allclose(weights.mean(axis=0), MEAN, rtol=1e-5)
    assert any(not np.allclose(weights, paths[0]) for weights in paths[1:])
    np.testing.assert_array_equal(follow(replayed(run, "shuffled", 0)), paths[0])


def test_weights_before_the_first_update_are_the_first(run):
    rule = replayed(run, "path")
    np.testing.assert_allclose(rule.weights(rule.init(np.ones(3) / 3)), PATH[0][1])


def test_another_run_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"mixture.mode is median, expected one of"):
        replayed(run, "median")
    with pytest.raises(ValueError, match=r"replay.run .* abilities .*expected a run"):
        RULES["replay"](run, NAMES[::-1], NUM_STEPS, 0)
    with pytest.raises(ValueError, match="of 100 steps, expected a run of 90"):
        RULES["replay"](run, NAMES, 90, 0)
    with pytest.raises(FileNotFoundError, match=r"mixture.replay.run.*finished run"):
        RULES["replay"](str(tmp_path / "nowhere"), NAMES, NUM_STEPS, 0)


def test_a_run_without_weights_is_refused(tmp_path):
    summary = dict(
        abilities={name: {} for name in NAMES}, num_steps=NUM_STEPS, weights_path=[]
    )
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ValueError, match="a run that logged its weights"):
        load_path(str(tmp_path), NAMES, NUM_STEPS)
