"""What the methods choose is trained once, next to what was trained already."""

import numpy as np
import pytest

from dcft_jax.meta.leave_out import Row
from dcft_jax.meta.prove import _distinct, _is_measured, blocks_of, chosen_mixtures
from dcft_jax.meta.worlds import smoke
from tests.meta.synthetic_cases import make_case


def test_mixtures_are_trained_once():
    wanted = [np.array(w) for w in ([0.5, 0.5], [0.3, 0.7], [0.305, 0.695], [0.9, 0.1])]
    found_NK = _distinct(wanted)
    np.testing.assert_array_equal(found_NK, [[0.5, 0.5], [0.3, 0.7], [0.9, 0.1]])
    assert len(_distinct([])) == 0


def test_a_mixture_is_measured_if_its_task_was():
    """Models of an earlier call may have been measured on other tasks."""
    case = make_case(np.random.default_rng(0), num_abilities=2, count=4, task="aiw")
    row = Row(
        *("ridge", case.world, case.task, case.category, np.array([0.123, 0.877])),
        **dict.fromkeys(("regret", "relative", "measured", "measured_relative"), 0.0),
        measured_accuracy=0.0,
        trusted=True,
        seed=0,
    )
    assert not _is_measured(case, row)
    weights_NK = np.concatenate([case.weights_NK, row.weights_K[None]])
    repeated = {
        name: np.append(getattr(case, name), getattr(case, name)[-1])
        for name in ("loss_N", "accuracy_N", "seed_N")
    }
    measured = case._replace(weights_NK=weights_NK, **repeated)
    assert _is_measured(measured, row)


def test_populations_have_one_size_and_places_left_are_repeats():
    weights_NK = np.eye(5)
    (first, zeros), (second, seeds) = blocks_of(weights_NK, 4)
    np.testing.assert_array_equal(first, weights_NK[:3])
    np.testing.assert_array_equal(zeros, 0)
    np.testing.assert_array_equal(second, weights_NK[[3, 4, 3]])
    np.testing.assert_array_equal(seeds, [0, 0, 1])
    assert [len(weights) for weights, _ in blocks_of(np.eye(38), 18)] == [13] * 3
    assert [len(weights) for weights, _ in blocks_of(np.eye(18), 18)] == [18]
    assert blocks_of(weights_NK[:0], 3) == []


def test_worlds_that_are_not_there_are_named():
    with pytest.raises(ValueError, match=r"worlds \[3\] are not in the store"):
        chosen_mixtures(smoke(), [], [], [3], ["lcm"])
