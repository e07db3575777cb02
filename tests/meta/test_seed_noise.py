"""The spread between mixtures and that between orders of the data."""

import numpy as np

from dcft_jax.meta.seed_noise import seed_noise
from tests.meta.synthetic_cases import make_case


def case_of(loss_N, weights_NK, seed_N, **fields):
    case = make_case(np.random.default_rng(0), num_abilities=2, **fields)
    return case._replace(
        weights_NK=np.array(weights_NK),
        loss_N=np.array(loss_N),
        seed_N=np.array(seed_N),
    )


WEIGHTS_NK = [[1.0, 0.0], [0.5, 0.5], [0.2, 0.8], [0.5, 0.5]]


def test_corners_are_left_out_and_repeats_are_the_noise():
    found = seed_noise([case_of([9.0, 1.0, 3.0, 1.2], WEIGHTS_NK, [0, 0, 0, 1])])
    np.testing.assert_allclose(found["mixtures"], np.std([1.0, 3.0], ddof=1))
    np.testing.assert_allclose(found["seeds"], np.std([1.0, 1.2], ddof=1))
    assert (found["share_above_2"], found["tasks"]) == (1.0, 1)


def test_without_repeats_nothing_is_known():
    once = case_of([9.0, 1.0, 3.0], WEIGHTS_NK[:3], [0, 0, 0])
    own = case_of([9.0, 1.0, 3.0, 1.2], WEIGHTS_NK, [0, 0, 0, 1], task="world-0")
    found = seed_noise([once, own])
    assert found["seeds"] is None and found["tasks"] == 0
