"""Interpolated specialists lie between those that they are made of."""

import numpy as np

from dcft_jax.meta.interpolate import interpolate


def test_vertices_are_the_specialists_and_the_rest_lies_between():
    rng = np.random.default_rng(0)
    base = {"a": rng.normal(size=(3, 2)), "b": {"c": rng.normal(size=4)}}
    special = {
        "a": rng.normal(size=(2, 3, 2)).astype(np.float32),
        "b": {"c": rng.normal(size=(2, 4)).astype(np.float32)},
    }
    weights_NK = np.array([[1.0, 0.0], [0.0, 1.0], [0.25, 0.75]])
    mixed = interpolate(base, special, weights_NK)
    for found, x_K in (
        (mixed["a"], special["a"]),
        (mixed["b"]["c"], special["b"]["c"]),
    ):
        np.testing.assert_allclose(found[:2], x_K, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[2], 0.25 * x_K[0] + 0.75 * x_K[1], 1e-5, 1e-6)
