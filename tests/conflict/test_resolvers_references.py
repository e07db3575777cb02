"""Every resolver against an independent one in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls

from dcft_jax.conflict import RESOLVERS
from tests.conflict.matrix_families import cases, make_rows, simplex
from tests.conflict.running import (
    coefficients,
    difference,
    effort,
    gramian,
    jitted,
)

few = settings(deadline=None, max_examples=20)
many = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 10_000)
SMALL = (2, 3, 5)


def pair(seed, log_scale=0.0):
    """Two rows, weights, norms, cosine."""
    rows = make_rows("normal", 2, seed) * np.array([[1.0], [10.0**log_scale]])
    norms = np.linalg.norm(rows, axis=1)
    return rows, simplex(2, seed), norms, rows[0] @ rows[1] / norms.prod()


def even(num_rows):
    return np.full(num_rows, 1 / num_rows)


def smallest_eigenvalue(rows):
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.linalg.eigvalsh(units @ units.T)[0]


# -------------------------------------------------------------------- mean and random


def test_mean_is_the_weights():
    rows, weights = make_rows("stationary", 5, 0), simplex(5, 0).astype(np.float32)
    np.testing.assert_array_equal(coefficients("mean", gramian(rows), weights), weights)


def test_random_draws_anew_every_step_and_repeats_from_a_state():
    weights, gram = simplex(5, 0).astype(np.float32), np.eye(5, dtype=np.float32)
    resolve, state = jitted("random"), RESOLVERS["random"]().init(5)
    draws = []
    for _ in range(2000):
        c, state = resolve(gram, weights, state)
        draws.append(np.asarray(c))
    draws = np.array(draws)
    np.testing.assert_allclose(draws.sum(axis=1), weights.sum(), rtol=1e-5)
    np.testing.assert_array_equal(coefficients("random", gram, weights), draws[0])
    assert not np.any(np.all(draws[1:] == draws[0], axis=1))
    other = coefficients("random", gram, weights, seed=1)
    assert not np.array_equal(other, draws[0])
    # log(c / w) differences are those of standard normals, so of variance 2.
    logs = np.log(draws / weights)
    spread = logs[:, 0] - logs[:, 1]
    assert abs(spread.mean()) < 0.15 and abs(spread.var() - 2) < 0.3


# ------------------------------------------------------------------ pcgrad and gradvac


def orders(num_rows, step, seed=0):
    key = jax.random.fold_in(jax.random.key(seed), step)
    bits = np.asarray(jax.random.bits(key, (num_rows, num_rows)))
    return [sorted(range(num_rows), key=row.__getitem__) for row in bits]


def pcgrad_on_vectors(rows, weights, orders):
    """Algorithm 1 of arXiv:2001.06782."""
    update = np.zeros(rows.shape[1])
    for i, order in enumerate(orders):
        projected = rows[i].copy()
        for j in order:
            product = projected @ rows[j]
            if j != i and product < 0:
                projected -= product / (rows[j] @ rows[j]) * rows[j]
        update += weights[i] * projected
    return update


def gradvac_on_vectors(rows, weights, orders, target, beta):
    """Algorithm 1 of arXiv:2010.05874; moves the targets in place."""
    update, norms = np.zeros(rows.shape[1]), np.linalg.norm(rows, axis=1)
    for i, order in enumerate(orders):
        turned = rows[i].copy()
        for j in order:
            if j == i:
                continue
            size = np.linalg.norm(turned)
            phi, goal = turned @ rows[j] / size / norms[j], target[i, j]
            if phi < goal:
                up = size * (goal * np.sqrt(1 - phi**2) - phi * np.sqrt(1 - goal**2))
                turned = turned + up / (norms[j] * np.sqrt(1 - goal**2)) * rows[j]
            target[i, j] = (1 - beta) * goal + beta * phi
        update += weights[i] * turned
    return update


@many
@given(seed=seeds, num_rows=st.sampled_from((2, 5)), step=st.integers(0, 50))
def test_pcgrad_equals_the_algorithm_on_vectors(seed, num_rows, step):
    rows, weights = make_rows("normal", num_rows, seed), simplex(num_rows, seed)
    state = RESOLVERS["pcgrad"]().init(num_rows)._replace(step=jnp.int32(step))
    c = coefficients("pcgrad", gramian(rows), weights, state)
    expected = pcgrad_on_vectors(rows, weights, orders(num_rows, step))
    np.testing.assert_allclose(c @ rows, expected, atol=1e-6 * np.abs(rows).max())


@few
@given(seed=seeds, num_rows=st.sampled_from((2, 5)))
def test_gradvac_equals_the_algorithm_on_vectors(seed, num_rows):
    """Over steps of related gradients, so that targets rise and act."""
    weights, rng = simplex(num_rows, seed), np.random.default_rng(seed)
    state, resolve = RESOLVERS["gradvac"]().init(num_rows), jitted("gradvac")
    common, target = rng.standard_normal(24), np.zeros((num_rows, num_rows))
    for step in range(5):
        rows = rng.standard_normal((num_rows, 24)) + rng.uniform(-1, 1) * common
        gram = gramian(rows)
        c, state = resolve(gram, np.float32(weights), state)
        expected = gradvac_on_vectors(
            rows, weights, orders(num_rows, step), target, 0.5
        )
        assert np.linalg.norm(c @ rows - expected) <= 1e-5 * effort(rows, c)
        np.testing.assert_allclose(state.target_KK, target, atol=1e-5)


def test_gradvac_without_targets_is_pcgrad():
    rows, weights = make_rows("stationary", 5, 0), simplex(5, 0)
    state = RESOLVERS["gradvac"](beta=0.0).init(5)
    for step in range(3):
        c, state = jitted("gradvac", beta=0.0)(
            gramian(rows), np.float32(weights), state
        )
        same = RESOLVERS["pcgrad"]().init(5)._replace(step=jnp.int32(step))
        np.testing.assert_array_equal(
            c, coefficients("pcgrad", gramian(rows), weights, same)
        )
    np.testing.assert_array_equal(state.target_KK, np.zeros((5, 5)))


def test_gradvac_of_the_absent_keeps_its_targets():
    rows, weights = make_rows("normal", 5, 0), np.float32(simplex(5, 0))
    resolve, state = jitted("gradvac"), RESOLVERS["gradvac"]().init(5)
    _, state = resolve(gramian(rows), weights, state)
    rows[2] = 0
    _, after = resolve(gramian(rows), weights, state)
    old, new = np.asarray(state.target_KK), np.asarray(after.target_KK)
    np.testing.assert_array_equal(new[2], old[2])
    np.testing.assert_array_equal(new[:, 2], old[:, 2])
    assert np.all((new != old)[np.ix_([0, 1], [3, 4])])


def test_gradvac_of_gradients_that_always_agree_has_a_bound():
    """The step towards a cosine of 1 has none."""
    rng, state = np.random.default_rng(0), RESOLVERS["gradvac"]().init(2)
    line, weights = rng.standard_normal(24), np.float32([0.5, 0.5])
    for _ in range(30):
        rows = line + 1e-4 * rng.standard_normal((2, 24))
        _, state = jitted("gradvac")(gramian(rows), weights, state)
    assert state.target_KK[0, 1] > 0.9999
    rows = line + 0.2 * rng.standard_normal((2, 24))
    c, _ = jitted("gradvac")(gramian(rows), weights, state)
    assert np.all(np.abs(c) < 15)


def test_a_random_order_repeats_from_a_state():
    gram, weights = gramian(make_rows("stationary", 5, 0)), np.float32(even(5))
    for name in ("pcgrad", "gradvac"):
        resolve, state = jitted(name), RESOLVERS[name]().init(5)
        seen = []
        for _ in range(4):
            c, state = resolve(gram, weights, state)
            seen.append(np.asarray(c))
        assert int(state.step) == 4
        assert any(not np.array_equal(seen[0], other) for other in seen[1:])
        np.testing.assert_array_equal(coefficients(name, gram, weights), seen[0])


# ----------------------------------------------------------------- upgrad and dualproj


def onto_the_cone(rows, vector):
    """What to add to a vector, as coefficients of the rows, to be against none."""
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return nnls(units.T, -vector)[0] / np.linalg.norm(rows, axis=1)


@many
@given(case=cases(("normal", "scaled", "aligned", "duplicated"), SMALL))
def test_upgrad_and_dualproj_project_onto_the_cone(case):
    rows, weights = case
    mean = np.float64(weights) @ rows
    expected = weights + onto_the_cone(rows, mean)
    c = coefficients("dualproj", gramian(rows), weights)
    # What a ridge of 1e-4 costs where gradients nearly cancel.
    assert difference(rows, c, expected) <= 1e-3
    added = [w * onto_the_cone(rows, row) for w, row in zip(weights, rows, strict=True)]
    c = coefficients("upgrad", gramian(rows), weights)
    assert difference(rows, c, weights + np.sum(added, axis=0)) <= 1e-3


@many
@given(seed=seeds, log_scale=st.floats(-3, 3))
def test_two_closed_forms_of_the_projections(seed, log_scale):
    """Each of two gradients projected off the other; and pcgrad does just that."""
    rows, weights, norms, cosine = pair(seed, log_scale)
    expected = weights - min(cosine, 0) * (weights * norms)[::-1] / norms
    for name, tolerance in (("upgrad", 2e-4), ("pcgrad", 1e-5)):
        c = coefficients(name, gramian(rows), weights)
        np.testing.assert_allclose(c, expected, rtol=tolerance)
    against = -weights[::-1] * norms[::-1] / norms * cosine
    c = coefficients("dualproj", gramian(rows), weights)
    np.testing.assert_allclose(c, np.maximum(weights, against), rtol=2e-4)


@many
@given(case=cases(sizes=SMALL))
def test_dualproj_leaves_a_mean_alone_that_is_against_nobody(case):
    rows, weights = case
    gram = np.float64(gramian(rows))
    c = coefficients("dualproj", gram, weights)
    assert np.all(c >= weights * (np.diagonal(gram) > 0))
    if np.all(gram @ weights >= 0):
        np.testing.assert_array_equal(c, weights * (np.diagonal(gram) > 0))


# --------------------------------------------------------------------------------- pcd


def pcd_by_slsqp(rows, tau, sizes):
    """Of gradients divided by their average norms; the first one is the priority."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    q = unit * sizes[:, None]
    needs = tau * sizes**2
    solution = minimize(
        lambda d: np.sum((d - q[0]) ** 2) / 2,
        q[0],
        jac=lambda d: d - q[0],
        constraints={
            "type": "ineq",
            "fun": lambda d: (q @ d - needs)[1:],
            "jac": lambda d: q[1:],
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return solution.x


@few
@given(seed=seeds, num_rows=st.sampled_from(SMALL), tau=st.sampled_from([0.02, 0.3]))
def test_pcd_equals_scipy(seed, num_rows, tau):
    rows = make_rows("normal", num_rows, seed)
    d = pcd_by_slsqp(rows, tau, np.ones(num_rows))
    c = coefficients("pcd", gramian(rows), even(num_rows), tau=tau)
    expected = d * np.linalg.norm(rows[0]) / np.linalg.norm(d)
    assert np.linalg.norm(c @ rows - expected) <= 1e-4 * np.linalg.norm(expected)


def test_pcd_measures_gradients_by_their_average_norm():
    rng, beta = np.random.default_rng(1), 0.5
    resolve, state = jitted("pcd", beta=beta, tau=0.3), RESOLVERS["pcd"]().init(2)
    squares, weights = [], np.float32([0.5, 0.5])
    for _ in range(4):
        rows = rng.standard_normal((2, 24)) * rng.uniform(0.2, 3, (2, 1))
        rows[1] -= 0.5 * rows[0] * np.linalg.norm(rows[1]) / np.linalg.norm(rows[0])
        squares.append(np.sum(rows**2, axis=1))
        decays = beta ** np.arange(len(squares))[::-1]
        average = decays @ np.array(squares) / decays.sum()
        c, state = resolve(gramian(rows), weights, state)
        np.testing.assert_allclose(state.square_norm_K, average, rtol=1e-5)
        d = pcd_by_slsqp(rows, 0.3, np.sqrt(squares[-1] / average))
        d *= np.linalg.norm(rows[0]) / np.linalg.norm(d)
        np.testing.assert_allclose(c @ rows, d, atol=1e-3 * np.abs(d).max())


def test_pcd_prefers_the_heavier_of_the_others():
    rows = np.eye(5)[:, :5]  # nobody is served unless asked for
    c = coefficients("pcd", rows @ rows.T, [0.4, 0.3, 0.15, 0.15, 0.0], tau=0.1)
    np.testing.assert_allclose(c[1:] / c[0], [0.2, 0.1, 0.1, 0.0], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(c), 1, rtol=1e-5)


def test_pcd_where_nothing_fits():
    e = np.eye(5)
    # Two of the others are opposite: their constraints are dropped.
    rows = np.stack([e[0], e[1], -e[1], e[2], e[3]])
    c = coefficients("pcd", gramian(rows), even(5))
    np.testing.assert_allclose(c, [1, 0, 0, 0, 0], atol=1e-6)
    # The other is opposite to the first: no step at all, and the size is not blown up.
    c = coefficients("pcd", gramian(np.stack([e[0], -e[0]])), [0.5, 0.5], tau=0.0)
    np.testing.assert_array_equal(c, [0, 0])
    # The first is absent: nothing to protect.
    rows[0] = 0
    c = coefficients("pcd", gramian(rows), even(5))
    np.testing.assert_allclose(c, [0, 0.2, 0.2, 0.2, 0.2], rtol=1e-6)


# ---------------------------------------------------------------------- mgda and cagrad


@many
@given(seed=seeds, log_scale=st.floats(-2, 2))
def test_mgda_of_two(seed, log_scale):
    rows, _, _, _ = pair(seed, log_scale)
    (a, b), (_, d) = rows @ rows.T
    first = np.clip((d - b) / (a + d - 2 * b), 0, 1)
    c = coefficients("mgda", gramian(rows), [0.5, 0.5])
    np.testing.assert_allclose(c, [first, 1 - first], atol=1e-4 * max(first, 0.01))


@many
@given(
    seed=seeds, num_rows=st.sampled_from((2, 5, 20)), decades=st.sampled_from([0, 2])
)
def test_mgda_closes_the_duality_gap(seed, num_rows, decades):
    """`w^T G w - min_k (G w)_k`, 0 just at the optimum; TorchJD leaves 14 %."""
    scales = 10 ** (decades * np.random.default_rng(seed).uniform(0, 1, num_rows))
    rows = make_rows("normal", num_rows, seed) * scales[:, None]
    w = np.float64(coefficients("mgda", gramian(rows), even(num_rows)))
    np.testing.assert_allclose(w.sum(), 1, rtol=1e-5)
    products = rows @ (w @ rows)
    shortest = np.sum((w @ rows) ** 2)
    assert shortest - products.min() <= 1e-3 * shortest


def test_mgda_serves_abilities_in_proportion_to_their_weights():
    rows, weights = make_rows("normal", 5, 2), np.array([0.26, 0.23, 0.2, 0.17, 0.14])
    c = coefficients("mgda", gramian(rows), weights)
    progress = (rows @ (c @ rows)) / weights
    served = c > 1e-6
    assert served.sum() == 4
    np.testing.assert_allclose(progress[served], progress[served].mean(), rtol=1e-3)
    assert np.all(progress[~served] >= progress[served].mean() * (1 - 1e-3))
    np.testing.assert_allclose(c.sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(
        coefficients("mgda", np.eye(5), weights), weights, rtol=1e-4
    )
    without = coefficients("mgda", gramian(rows), [0.26, 0.23, 0.2, 0.31, 0.0])
    assert without[4] == 0


def best_of_the_worst(rows, weights, reach):
    """`max_d min_k <g_k, d>` in the ball, by its dual on the simplex."""
    gram, size = rows @ rows.T, len(rows)
    against = gram @ weights

    def value(w):
        image = gram @ w
        length = np.sqrt(max(w @ image, 1e-30))
        return w @ against + reach * length, against + reach * image / length

    starts = [even(size), *(0.9 * np.eye(size) + 0.1 / size)]
    found = [
        minimize(
            value,
            start,
            jac=True,
            bounds=[(0, 1)] * size,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        ).fun
        for start in starts
    ]
    return min(found)


@few
@given(seed=seeds, num_rows=st.sampled_from(SMALL), radius=st.sampled_from([0.2, 1, 3]))
def test_cagrad_equals_scipy(seed, num_rows, radius):
    rows, weights = make_rows("normal", num_rows, seed), simplex(num_rows, seed)
    c = coefficients("cagrad", gramian(rows), weights, radius=float(radius))
    update, mean = c @ rows, weights @ rows
    reach = radius * np.linalg.norm(mean)
    np.testing.assert_allclose(np.linalg.norm(update - mean), reach, rtol=1e-4)
    best = best_of_the_worst(rows, weights, reach)
    scale = np.linalg.norm(rows, axis=1).max() * np.linalg.norm(mean)
    assert best - (rows @ update).min() <= 5e-4 * scale


def test_cagrad_between_the_mean_and_mgda():
    rows, weights = make_rows("normal", 5, 3), np.float32(even(5))
    np.testing.assert_array_equal(
        coefficients("cagrad", gramian(rows), weights, radius=0.0), weights
    )
    far = coefficients("cagrad", gramian(rows), weights, radius=100.0) @ rows
    shortest = coefficients("mgda", gramian(rows), weights) @ rows
    cosine = far @ shortest / np.linalg.norm(far) / np.linalg.norm(shortest)
    assert cosine > 0.999


def test_cagrad_of_a_mean_that_cancels_is_the_mean():
    opposite = np.array([[1.0, -1.0], [-1.0, 1.0]])
    c = coefficients("cagrad", opposite, [0.5, 0.5])
    np.testing.assert_allclose(c, [0.5, 0.5], atol=1e-6)


# ------------------------------------------------------------------ nash_mtl, fairgrad


@many
@given(seed=seeds, log_scale=st.floats(-5, 5))
def test_nash_of_two(seed, log_scale):
    rows, _, norms, cosine = pair(seed, log_scale)
    c = coefficients("nash_mtl", gramian(rows), [1.0, 1.0])
    np.testing.assert_allclose(c, 1 / norms / np.sqrt(1 + cosine), rtol=1e-5)


@many
@given(case=cases(("normal", "scaled"), SMALL))
def test_nash_residual(case):
    rows, weights = case
    assume(smallest_eigenvalue(rows) > 0.1)
    weights = 0.2 / len(rows) + 0.8 * np.float64(weights)
    a = np.float64(coefficients("nash_mtl", gramian(rows), weights))
    np.testing.assert_allclose(a * (rows @ (a @ rows)) / weights, 1, atol=1e-5)
    np.testing.assert_allclose(np.sum((a @ rows) ** 2), weights.sum(), rtol=1e-5)


@few
@given(seed=seeds)
def test_nash_is_the_minimum_that_scipy_finds(seed):
    rows, weights = make_rows("normal", 5, seed), simplex(5, seed)
    gram = rows @ rows.T

    def value(log_a):
        a = np.exp(log_a)
        return a @ gram @ a / 2 - weights @ log_a, a * (gram @ a) - weights

    start = np.log(np.sqrt(weights) / np.linalg.norm(rows, axis=1))
    found = minimize(value, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    c = coefficients("nash_mtl", gramian(rows), weights)
    assert difference(rows, c, np.exp(found.x)) <= 1e-4


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 2.0, 10.0])
@few
@given(seed=seeds)
def test_fairgrad_residual(alpha, seed):
    rows = make_rows("normal", 5, seed)
    assume(smallest_eigenvalue(rows) > 0.1)
    weights = 0.1 + 0.5 * simplex(5, seed)
    c = np.float64(coefficients("fairgrad", gramian(rows), weights, alpha=alpha))
    # In logarithms, as the power of 10 makes of a rounding error ten.
    residual = np.log(rows @ (c @ rows)) + np.log(c) / alpha - np.log(weights)
    np.testing.assert_allclose(residual, 0, atol=2e-5 * max(1, 1 / alpha))


def test_fairgrad_between_equal_coefficients_and_equal_progress():
    rows, weights = make_rows("normal", 5, 1), even(5)
    spreads = []
    for alpha in (0.1, 0.5, 1.0, 2.0, 10.0):
        c = coefficients("fairgrad", gramian(rows), weights, alpha=alpha)
        progress = rows @ (c @ rows)
        spreads.append([np.ptp(x) / x.mean() for x in (c, progress)])
    coefficient_spread, progress_spread = np.array(spreads).T
    assert np.all(np.diff(coefficient_spread) > 0) and coefficient_spread[0] < 0.2
    assert np.all(np.diff(progress_spread) < 0) and progress_spread[-1] < 0.25
    np.testing.assert_allclose(
        coefficients("fairgrad", gramian(rows), weights, alpha=1.0),
        coefficients("nash_mtl", gramian(rows), weights),
        rtol=1e-6,
    )


def test_bargains_stay_finite_and_weightless_abilities_out():
    opposite = np.array([[1.0, -1.0], [-1.0, 1.0]])
    for name in ("nash_mtl", "fairgrad"):
        c = coefficients(name, opposite, [0.5, 0.5])
        assert np.all(np.isfinite(c)) and np.all(c < 1e4)
        rows = make_rows("normal", 5, 0)
        c = coefficients(name, gramian(rows), [0.5, 0.2, 0.3, 0.0, 0.0])
        assert np.all(c[3:] == 0)
        assert np.all(rows[:3] @ (c @ rows) > 0)


# ------------------------------------------------------- imtl_g, con_fig, aligned_mtl


@many
@given(seed=seeds, num_rows=st.sampled_from((2, 5, 20)))
def test_imtl_equals_the_pseudo_inverse(seed, num_rows):
    rows, weights = make_rows("normal", num_rows, seed), simplex(num_rows, seed)
    assume(smallest_eigenvalue(rows) > 1e-3)
    norms = np.linalg.norm(rows, axis=1)
    units = rows / norms[:, None]
    shares = np.linalg.pinv(units @ units.T) @ weights / norms
    c = coefficients("imtl_g", gramian(rows), weights)
    if shares.sum() < 1e-2 * np.abs(shares).sum():
        return  # at or near the guard
    assert difference(rows, c, shares / shares.sum()) <= 1e-3
    np.testing.assert_allclose(c.sum(), 1, rtol=1e-3)
    projections = units @ (c @ rows) / weights
    spread = np.ptp(projections) / np.abs(projections).mean()
    assert spread <= 1e-2 * max(1, effort(rows, c) / np.linalg.norm(c @ rows))


def test_imtl_of_two_is_in_proportion_to_the_other_norm():
    rows, _, norms, _ = pair(3, 1.0)
    c = coefficients("imtl_g", gramian(rows), [0.5, 0.5])
    np.testing.assert_allclose(c, norms[::-1] / norms.sum(), rtol=1e-5)


def test_imtl_falls_back_to_the_weights_where_it_would_turn_around():
    # Close together and of very different length: D^-1 C^+ 1 sums to less than 0.
    units = np.eye(5)
    units[1, :2], units[2, :3] = [0.8, 0.6], [0.9, 0.3, 0.1]
    rows = units * np.array([[1], [1], [0.01], [1], [1]])
    gram = gramian(rows)
    norms = np.linalg.norm(rows, axis=1)
    shares = np.linalg.pinv(gram / np.outer(norms, norms)) @ even(5) / norms
    assert shares.sum() < 0
    np.testing.assert_array_equal(
        coefficients("imtl_g", gram, even(5)), np.float32(even(5))
    )
    opposite = np.array([[1.0, -0.5], [-0.5, 0.25]])  # no direction serves both
    np.testing.assert_allclose(coefficients("imtl_g", opposite, [0.5, 0.5]), 0.5)


@many
@given(case=cases(("normal", "scaled"), SMALL))
def test_con_fig_equals_the_paper_on_vectors(case):
    rows, weights = case[0], np.float64(case[1])
    assume(smallest_eigenvalue(rows) > 1e-3)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    direction = np.linalg.pinv(units) @ weights
    direction /= np.linalg.norm(direction)
    expected = (weights @ (rows @ direction)) * direction
    c = coefficients("con_fig", gramian(rows), weights)
    assert np.linalg.norm(c @ rows - expected) <= 1e-4 * effort(rows, c)
    cosines = units @ (c @ rows) / weights
    np.testing.assert_allclose(cosines, cosines.mean(), rtol=1e-2)


def test_con_fig_where_no_direction_serves_all_is_nothing():
    opposite = np.array([[1.0, -0.5], [-0.5, 0.25]])
    np.testing.assert_array_equal(coefficients("con_fig", opposite, [0.5, 0.5]), [0, 0])


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
@few
@given(seed=seeds)
def test_aligned_equals_the_formula(scale, seed):
    rows, weights = make_rows("normal", 5, seed), simplex(5, seed)
    values, vectors = np.linalg.eigh(rows @ rows.T)
    lengths = {"min": values[0], "median": values[2], "rmse": values.mean()}
    B = np.sqrt(lengths[scale]) * (vectors / np.sqrt(values)) @ vectors.T
    c = coefficients("aligned_mtl", gramian(rows), weights, scale=scale)
    np.testing.assert_allclose(c, B @ weights, atol=1e-4)
    np.testing.assert_allclose(
        B @ (rows @ rows.T) @ B, lengths[scale] * np.eye(5), atol=1e-9
    )


def test_aligned_leaves_out_directions_that_are_not_there():
    rows = make_rows("normal", 5, 0)
    rows[3], rows[4] = rows[0], 0
    values, vectors = np.linalg.eigh(rows @ rows.T)
    kept = values > 1e-9
    values, vectors = values[kept], vectors[:, kept]
    assert kept.sum() == 3
    for scale, length in (("min", values[0]), ("rmse", values.mean())):
        c = coefficients("aligned_mtl", gramian(rows), even(5), scale=scale)
        B = np.sqrt(length) * (vectors / np.sqrt(values)) @ vectors.T
        np.testing.assert_allclose(c, B @ even(5), atol=1e-5)
