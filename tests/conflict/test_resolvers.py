"""Invariants of every resolver, and independent references for each."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from dcft_jax.conflict import RESOLVERS, dualproj, pcgrad, solve_nnqp
from tests.conflict.matrix_families import SIZES, make_rows, rows_and_weights

GOLDEN = np.array([[-4.0, 1, 1], [6, 1, 1]])
names = pytest.mark.parametrize("name", sorted(RESOLVERS))
many = settings(deadline=None, max_examples=40)


@functools.cache
def jitted(name):
    return jax.jit(RESOLVERS[name]().resolve)


jitted_solver = jax.jit(solve_nnqp)


def gramian(rows):
    return (rows @ rows.T).astype(np.float32)


def coefficients(name, gram, weights, state=None):
    state = RESOLVERS[name]().init(len(weights)) if state is None else state
    gram, weights = np.asarray(gram, np.float32), np.asarray(weights, np.float32)
    return np.asarray(jitted(name)(gram, weights, state)[0])


@names
@many
@given(case=rows_and_weights)
def test_finite_not_negative_and_zero_for_the_absent(name, case):
    rows, weights = case
    c = coefficients(name, gramian(rows), weights)
    assert c.dtype == np.float32 and c.shape == weights.shape
    assert np.all(np.isfinite(c)) and np.all(c >= 0)
    assert np.all(c[np.diagonal(gramian(rows)) == 0] == 0)


@names
@many
@given(seed=st.integers(0, 10_000), num_rows=st.sampled_from(SIZES))
def test_without_conflict_the_weights_come_back_bit_by_bit(name, seed, num_rows):
    rows = make_rows("aligned", num_rows, seed)
    weights = np.random.default_rng(seed).dirichlet(np.ones(num_rows))
    weights = weights.astype(np.float32)
    np.testing.assert_array_equal(coefficients(name, gramian(rows), weights), weights)


@names
def test_one_ability_keeps_its_weight(name):
    np.testing.assert_array_equal(coefficients(name, [[4.0]], [0.7]), np.float32([0.7]))


@names
@many
@given(case=rows_and_weights, exponent=st.integers(-33, 33))
def test_the_scale_of_the_gramian_does_not_matter(name, case, exponent):
    """From 1e-20 to 1e20."""
    rows, weights = case
    gram = gramian(rows)
    plain = coefficients(name, gram, weights)
    # A power of 4 only moves exponents, of the Gramian and of its root.
    exact = coefficients(name, gram * np.float32(4.0**exponent), weights)
    np.testing.assert_array_equal(exact, plain)
    rounded = coefficients(name, gram * np.float32(0.7 * 4.0**exponent), weights)
    assert_same_update(gram, rounded, plain)


@names
@many
@given(case=rows_and_weights, bad=st.sampled_from([np.nan, np.inf]))
def test_a_bad_row_is_the_same_as_no_row(name, case, bad):
    rows, weights = case
    gram = gramian(rows)
    without, gram = gram.copy(), gram.copy()
    without[0, :] = without[:, 0] = 0
    gram[0, :] = gram[:, 0] = bad
    np.testing.assert_array_equal(
        coefficients(name, gram, weights), coefficients(name, without, weights)
    )


@pytest.mark.parametrize("name", ["mean", "dualproj"])
@many
@given(case=rows_and_weights)
def test_an_absent_row_is_the_same_as_a_dropped_row(name, case):
    rows, weights = case
    gram = gramian(rows)
    gram[-1, :] = gram[:, -1] = 0
    padded = coefficients(name, gram, weights)
    if len(rows) > 1:
        dropped = coefficients(name, gram[:-1, :-1], weights[:-1])
        assert_same_update(gram[:-1, :-1], padded[:-1], dropped)
    assert padded[-1] == 0


@pytest.mark.parametrize("name", ["mean", "dualproj"])
@many
@given(case=rows_and_weights, seed=st.integers(0, 100))
def test_permutation_equivariant(name, case, seed):
    rows, weights = case
    order = np.random.default_rng(seed).permutation(len(rows))
    gram = gramian(rows)
    permuted = coefficients(name, gram[np.ix_(order, order)], weights[order])
    back = np.empty_like(permuted)
    back[order] = permuted
    assert_same_update(gram, back, coefficients(name, gram, weights))


def assert_same_update(gram, one, other, tolerance=1e-3):
    """Equal as updates: coefficients of repeated gradients may be shared out freely.

    1e-3 is the square root of float32 rounding, which a nearly singular quadratic
    program turns into a difference of solutions.
    """
    gram, norms = gram.astype(np.float64), np.sqrt(np.diagonal(gram))
    difference = one.astype(np.float64) - other
    length = np.sqrt(max(difference @ gram @ difference, 0.0))
    assert length <= tolerance * max(np.sum(norms * np.abs(other)), 1e-30)


@names
def test_depends_on_the_rows_only_through_their_products(name):
    rows = make_rows("normal", 5, 3)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]
    weights = np.full(5, 0.2, np.float32)
    np.testing.assert_allclose(
        coefficients(name, gramian(rows @ rotation), weights),
        coefficients(name, gramian(rows), weights),
        rtol=1e-4,
    )


@names
def test_all_rows_equal_gives_a_multiple_of_the_row(name):
    gram = np.ones((4, 4), np.float32) * 9
    c = coefficients(name, gram, [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(c.sum(), 1.0, rtol=1e-6)


@names
def test_vmap_equals_a_loop_and_jit_equals_eager(name):
    resolver = RESOLVERS[name]()
    state = resolver.init(4)
    grams = np.stack([gramian(make_rows("normal", 4, seed)) for seed in range(6)])
    weights = np.full(4, 0.25, np.float32)
    batched = jax.vmap(resolver.resolve, (0, None, None))(grams, weights, state)[0]
    eager = resolver.resolve(jnp.asarray(grams[0]), jnp.asarray(weights), state)[0]
    np.testing.assert_allclose(eager, batched[0], rtol=2e-5, atol=1e-6)
    for gram, c in zip(grams, batched, strict=True):
        np.testing.assert_allclose(jitted(name)(gram, weights, state)[0], c, rtol=2e-5)


@names
def test_works_on_replicated_values_of_an_explicit_mesh(name):
    mesh = jax.make_mesh((4, 2), ("ability", "data"))
    gram, weights = gramian(GOLDEN), np.array([0.5, 0.5], np.float32)
    resolver = RESOLVERS[name]()
    with jax.set_mesh(mesh):
        c = jax.jit(resolver.resolve)(gram, weights, resolver.init(2))[0]
    np.testing.assert_array_equal(c, coefficients(name, gram, weights))


# ----------------------------------------------------------------------------- pcgrad


def test_pcgrad_golden_value():
    # Sum form in TorchJD's test_values.py: [2.2222, 1.5789]; the mean form is half.
    c = coefficients("pcgrad", gramian(GOLDEN), [0.5, 0.5])
    np.testing.assert_allclose(2 * c, [2.2222, 1.5789], atol=1e-4)


def pcgrad_in_parameter_space(rows, weights, orders):
    """Algorithm 1 of arXiv:2001.06782 on the vectors themselves, float64."""
    update = np.zeros(rows.shape[1])
    for i, order in enumerate(orders):
        projected = rows[i].copy()
        for j in order:
            product = projected @ rows[j]
            if j != i and product < 0:
                projected -= product / (rows[j] @ rows[j]) * rows[j]
        update += weights[i] * projected
    return update


@many
@given(
    seed=st.integers(0, 1000),
    num_rows=st.sampled_from(SIZES[1:]),
    step=st.integers(0, 50),
)
def test_pcgrad_equals_the_algorithm_on_vectors(seed, num_rows, step):
    rows = make_rows("normal", num_rows, seed)
    weights = np.full(num_rows, 1 / num_rows, np.float32)
    key = jax.random.fold_in(jax.random.key(0), step)
    keys = jax.random.split(key, num_rows)
    orders = jax.vmap(lambda k: jax.random.permutation(k, num_rows))(keys)
    state = pcgrad().init(num_rows)._replace(step=jnp.int32(step))
    c = coefficients("pcgrad", gramian(rows), weights, state)
    expected = pcgrad_in_parameter_space(rows, weights, np.asarray(orders))
    np.testing.assert_allclose(c @ rows, expected, atol=2e-5 * np.abs(rows).max())


def test_pcgrad_draws_a_new_order_every_step_and_repeats_from_a_state():
    resolver, weights = pcgrad(seed=1), np.full(6, 1 / 6, np.float32)
    gram = gramian(make_rows("stationary", 6, 0))
    state, seen = resolver.init(6), []
    for _ in range(4):
        c, state = resolver.resolve(gram, weights, state)
        seen.append(np.asarray(c))
    assert int(state.step) == 4
    assert any(not np.array_equal(seen[0], other) for other in seen[1:])
    again, state = resolver.resolve(gram, weights, resolver.init(6))
    np.testing.assert_array_equal(again, seen[0])
    np.testing.assert_array_equal(resolver.resolve(gram, weights, state)[0], seen[1])


@many
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_pcgrad_of_two_is_against_none(seed, scale):
    rows = make_rows("normal", 2, seed) * np.array([[1.0], [scale]])
    c = coefficients("pcgrad", gramian(rows), [0.5, 0.5])
    update = c @ rows
    norms = np.linalg.norm(rows, axis=1)
    assert np.all(rows @ update >= -1e-5 * norms * np.sum(c * norms))


# --------------------------------------------------------------------------- dualproj


def test_dualproj_golden_value():
    c = coefficients("dualproj", gramian(GOLDEN), [0.5, 0.5])
    # v_2 = 1/2 is at its bound, so v_1 = 22 / 18 * 1/2.
    np.testing.assert_allclose(c, [11 / 18, 0.5], atol=5e-5)
    # TorchJD's test_values.py has .6109, with its ridge of 1e-4 relative to the trace.
    np.testing.assert_allclose(c, [0.6109, 0.5], atol=2.5e-4)


def dualproj_by_enumeration(gram, weights):
    """argmin_{v >= w} v^T G v over every active set, float64."""
    best, best_value = None, np.inf
    size = len(weights)
    for free in itertools.chain.from_iterable(
        itertools.combinations(range(size), n) for n in range(size + 1)
    ):
        free, v = list(free), weights.astype(np.float64)
        held = [k for k in range(size) if k not in free]
        if free:
            right = -gram[np.ix_(free, held)] @ v[held]
            v[free] = np.linalg.lstsq(gram[np.ix_(free, free)], right, rcond=None)[0]
        value = v @ gram @ v
        if np.all(v >= weights - 1e-9) and value < best_value:
            best, best_value = v, value
    return best


@many
@given(
    family=st.sampled_from(["normal", "scaled", "aligned"]),
    seed=st.integers(0, 10_000),
    num_rows=st.sampled_from(SIZES[:4]),
)
def test_dualproj_equals_enumeration(family, seed, num_rows):
    rows = make_rows(family, num_rows, seed)
    weights = np.random.default_rng(seed).dirichlet(np.ones(num_rows))
    weights = weights.astype(np.float32)
    c = coefficients("dualproj", gramian(rows), weights)
    expected = dualproj_by_enumeration(rows @ rows.T, weights)
    difference = np.linalg.norm((c - expected) @ rows)
    # The ridge of 1e-4 costs this much where three gradients nearly cancel.
    assert difference <= 2e-3 * np.sum(np.linalg.norm(rows, axis=1) * weights)


@many
@given(case=rows_and_weights)
def test_dualproj_is_against_no_ability(case):
    rows, weights = case
    c = coefficients("dualproj", gramian(rows), weights)
    update, norms = c @ rows, np.linalg.norm(rows, axis=1)
    assert np.all(c >= weights * (norms > 0))
    # Relative to the sum of lengths that went in; the ridge allows 1e-4 of x.
    assert np.all(rows @ update >= -2e-4 * norms * np.sum(c * norms))


@many
@given(case=rows_and_weights)
def test_dualproj_leaves_a_mean_alone_that_is_against_nobody(case):
    rows, weights = case
    gram = gramian(rows).astype(np.float64)
    c = coefficients("dualproj", gram, weights)
    if np.all(gram @ weights >= 0):
        np.testing.assert_array_equal(c, weights * (np.diagonal(gram) > 0))


@pytest.mark.parametrize("ridge", [0.0, -1.0, 2.0, float("nan")])
def test_dualproj_refuses_a_bad_ridge(ridge):
    with pytest.raises(ValueError, match="ridge"):
        dualproj(ridge)


@many
@given(case=rows_and_weights, seed=st.integers(0, 1000))
def test_solver_equals_scipy(case, seed):
    rows, _ = case
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    matrix = unit @ unit.T + 1e-2 * np.eye(len(rows))
    linear = np.random.default_rng(seed).uniform(-1, 1, len(rows))
    x = np.asarray(jitted_solver(jnp.float32(matrix), jnp.float32(linear)))
    # x^T M x / 2 + q^T x = |R x + R^-T q|^2 / 2 + const with M = R^T R.
    factor = np.linalg.cholesky(matrix).T
    expected = nnls(factor, -np.linalg.solve(factor.T, linear))[0]
    assert np.all(x >= 0)
    np.testing.assert_allclose(x, expected, atol=2e-4 * max(1.0, expected.max()))
