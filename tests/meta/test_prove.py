"""What the methods choose is trained once, next to what was trained already."""

import numpy as np
import pytest

from dcft_jax.meta.prove import _new, blocks_of, chosen_mixtures
from dcft_jax.meta.worlds import smoke


def test_only_new_mixtures_are_trained():
    measured_UK = np.array([[1.0, 0.0], [0.5, 0.5]])
    wanted = [np.array(w) for w in ([0.5, 0.5], [0.3, 0.7], [0.305, 0.695], [0.9, 0.1])]
    np.testing.assert_array_equal(_new(wanted, measured_UK), [[0.3, 0.7], [0.9, 0.1]])
    assert _new(wanted[:1], measured_UK).shape == (0, 2)


def test_populations_have_one_size_and_places_left_are_repeats():
    weights_NK = np.eye(5)
    (first, zeros), (second, seeds) = blocks_of(weights_NK, 3)
    np.testing.assert_array_equal(first, weights_NK[:3])
    np.testing.assert_array_equal(zeros, 0)
    np.testing.assert_array_equal(second, weights_NK[[3, 4, 3]])
    np.testing.assert_array_equal(seeds, [0, 0, 1])
    assert blocks_of(weights_NK[:0], 3) == []


def test_worlds_that_are_not_there_are_named():
    with pytest.raises(ValueError, match=r"worlds \[3\] are not in the store"):
        chosen_mixtures(smoke(), [], [], [3], ["lcm"])
