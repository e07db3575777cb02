"""Residuals of systems that are solved as well as float32 can."""

import jax
import numpy as np
import pytest

from dcft_jax.conflict.accurate import residual

EPS = np.finfo(np.float32).eps


@pytest.mark.parametrize("size", [1, 2, 5, 20])
def test_equal_to_float64_where_float32_knows_nothing(size):
    rng = np.random.default_rng(size)
    rows = rng.standard_normal((size, size + 1))
    matrix = np.float32(rows @ rows.T)
    x = rng.standard_normal(size).astype(np.float32) * 1e3
    exact = np.float64(matrix) @ np.float64(x)
    side = np.float32(exact)  # so that the residual is the rounding of this
    expected = np.float64(side) - exact
    terms = np.abs(matrix) @ np.abs(x)
    got = np.float64(jax.jit(residual)(matrix, x, side))
    bound = EPS * np.abs(expected) + 10 * size * EPS**2 * terms
    assert np.all(np.abs(got - expected) <= bound)
    assert np.any(np.abs(side - matrix @ x - expected) > 100 * bound) or size == 1
