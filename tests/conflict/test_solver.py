"""Non-negative quadratic programs against scipy and against their own conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from dcft_jax.conflict.solver import refine_nnqp, solve_nnqp
from tests.conflict.matrix_families import cases, make_stationary_rows

SIZES = (1, 2, 5, 20)  # each is one compilation
many = settings(deadline=None, max_examples=60)
solve = jax.jit(solve_nnqp)
refine = jax.jit(refine_nnqp, static_argnums=(2, 3))
solve_all = jax.jit(jax.vmap(solve_nnqp, (None, 0)))


def cosines(rows):
    units = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    return units @ units.T


def by_nnls(matrix, linear):
    # x^T M x / 2 + q^T x = |R x + R^-T q|^2 / 2 + const with M = R^T R.
    factor = np.linalg.cholesky(matrix).T
    return nnls(factor, -np.linalg.solve(factor.T, linear))[0]


@many
@given(case=cases(sizes=SIZES), seed=st.integers(0, 1000))
def test_solver_equals_scipy(case, seed):
    rows, _ = case
    ridge = 1e-2
    matrix = np.float32(cosines(rows) + ridge * np.eye(len(rows)))
    linear = np.random.default_rng(seed).uniform(-1, 1, len(rows)).astype(np.float32)
    x = np.asarray(solve(matrix, linear))
    expected = by_nnls(np.float64(matrix), np.float64(linear))
    assert np.all(x >= 0)
    np.testing.assert_allclose(x, expected, rtol=0, atol=2e-5 * max(1.0, x.max()))
    # And where the ridge leaves x loose, the objective is still as low as its terms.
    m, q, x = np.float64(matrix), np.float64(linear), np.float64(x)
    gap = (x @ m @ x / 2 + q @ x) - (expected @ m @ expected / 2 + q @ expected)
    assert gap <= np.finfo(np.float32).eps * (x @ np.abs(m) @ x + np.abs(q) @ x + 1)


@many
@given(case=cases(sizes=SIZES), seed=st.integers(0, 1000))
def test_the_conditions_of_an_optimum_hold_at_the_smallest_ridge_in_use(case, seed):
    rows, _ = case
    matrix = np.float32(cosines(rows) + 1e-4 * np.eye(len(rows)))
    linear = np.random.default_rng(seed).uniform(-1, 1, len(rows)).astype(np.float32)
    x = np.float64(solve(matrix, linear))
    slope = np.float64(matrix) @ x + linear
    size = max(1.0, x.max())
    assert np.all(x >= 0) and np.all(slope >= -1e-5 * size)
    assert np.all(np.abs(x * slope) <= 1e-5 * size**2)


@pytest.mark.parametrize("kind", ["strong", "strictly_weak"])
def test_it_ends_where_the_solution_is_as_large_as_the_ridge_lets_it(kind):
    """A slope of -1 along directions that cost nothing: x is about 1 / ridge."""
    rows = make_stationary_rows(kind, 20, 10, 5, 0)
    matrix = np.float32(cosines(rows) + 1e-4 * np.eye(20))
    x = np.float64(solve(matrix, -np.ones(20, np.float32)))
    assert np.all(np.isfinite(x)) and x.max() > 1e2
    assert np.all(np.float64(matrix) @ x - 1 >= -1e-5 * x.max())


def test_nothing_to_do_is_exactly_zero():
    x = solve(np.eye(5, dtype=np.float32), np.linspace(0, 1, 5, dtype=np.float32))
    np.testing.assert_array_equal(x, np.zeros(5))


def test_vmapped_programs_do_not_disturb_each_other():
    matrix = np.float32(cosines(make_stationary_rows("strong", 20, 10, 9, 1)))
    matrix += 1e-2 * np.eye(20, dtype=np.float32)
    together = solve_all(matrix, matrix)
    for linear, x in zip(matrix, together, strict=True):
        np.testing.assert_allclose(x, solve(matrix, linear), atol=1e-5)


def test_refinement_takes_the_ridge_out_again():
    rng = np.random.default_rng(3)
    matrix = cosines(rng.standard_normal((5, 8)))
    linear = rng.uniform(-1, 0.2, 5)
    expected = by_nnls(matrix, linear)
    matrix, linear = jnp.float32(matrix), jnp.float32(linear)
    errors = [
        np.abs(refine(matrix, linear, 1e-1, steps) - expected).max()
        for steps in (1, 3, 9)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    np.testing.assert_allclose(refine(matrix, linear, 1e-4, 3), expected, atol=1e-5)
