"""What is logged, against the vectors themselves in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from dcft_jax.conflict import Noise, diagnose, pareto_gap
from tests.conflict.matrix_families import make_rows

describe = jax.jit(diagnose)
gap = jax.jit(pareto_gap)
few = settings(deadline=None, max_examples=25)


def gramian(rows):
    return jnp.asarray(rows @ rows.T, jnp.float32)


@few
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-12, 1.0, 1e12]))
def test_change_cosines_and_rates(seed, scale):
    rows = make_rows("normal", 4, seed)
    rng = np.random.default_rng(seed)
    weights, chosen = rng.dirichlet(np.ones(4)), rng.random(4)
    info = describe(gramian(rows * scale), jnp.float32(weights), jnp.float32(chosen))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = unit @ unit.T
    pairs = cosines[np.triu_indices(4, 1)]
    np.testing.assert_allclose(info.cosines_KK, cosines, atol=1e-5)
    np.testing.assert_allclose(info.min_cosine, pairs.min(), atol=1e-5)
    np.testing.assert_allclose(info.conflict_rate, np.mean(pairs < 0), atol=1e-6)
    change = np.linalg.norm((chosen - weights) @ rows) / np.linalg.norm(weights @ rows)
    np.testing.assert_allclose(info.change, change, rtol=1e-3)
    assert bool(info.acted) and np.isnan(info.significant_rate)


def test_significant_conflicts_are_beyond_two_standard_errors():
    gram_KK = jnp.array([[1.0, -0.5, -0.5], [-0.5, 1.0, 0.2], [-0.5, 0.2, 1.0]])
    stderr_KK = jnp.array([[0.1, 0.1, 0.3], [0.1, 0.1, 0.1], [0.3, 0.1, 0.1]])
    weights_K = jnp.ones(3) / 3
    noise = Noise(jnp.ones(3), jnp.ones(3), stderr_KK)
    info = describe(gram_KK, weights_K, weights_K, noise)
    np.testing.assert_allclose(info.significant_rate, 1 / 3)
    np.testing.assert_allclose(info.conflict_rate, 2 / 3)
    unknown = Noise(jnp.ones(3), jnp.ones(3), stderr_KK.at[0].set(jnp.nan))
    info = describe(gram_KK, weights_K, weights_K, unknown)
    assert not bool(info.acted)


def test_groups_add_up():
    rows = [make_rows("normal", 3, seed) for seed in range(2)]
    weights, chosen = np.array([0.5, 0.2, 0.3]), np.array([[0.6, 0.2, 0.3], [1, 0, 0]])
    gram_GKK = jnp.stack([gramian(part) for part in rows])
    info = describe(gram_GKK, jnp.float32(weights), jnp.float32(chosen))
    mean = np.concatenate([weights @ part for part in rows])
    update = np.concatenate([c @ part for c, part in zip(chosen, rows, strict=True)])
    change = np.linalg.norm(update - mean) / np.linalg.norm(mean)
    np.testing.assert_allclose(info.change, change, rtol=1e-4)
    unit = rows[1] / np.linalg.norm(rows[1], axis=1, keepdims=True)
    np.testing.assert_allclose(info.group_cosines_GKK[1], unit @ unit.T, atol=1e-5)
    square = np.stack([np.sum(part**2, axis=1) for part in rows])
    expected = np.sum(square * chosen, axis=0) / square.sum(0)
    np.testing.assert_allclose(info.coefficients_K, expected, rtol=1e-5)


@few
@given(seed=st.integers(0, 10_000), num_rows=st.sampled_from([2, 3, 5]))
def test_pareto_gap_is_the_distance_of_the_unit_gradients_hull(seed, num_rows):
    rows = make_rows("scaled", num_rows, seed)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    # min |U^T x| with sum x = 1, as a least-squares problem with a heavy last row.
    system = np.vstack([unit.T, 1e4 * np.ones(num_rows)])
    x = nnls(system, np.r_[np.zeros(unit.shape[1]), 1e4])[0]
    np.testing.assert_allclose(gap(gramian(rows)), np.linalg.norm(x @ unit), atol=1e-3)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_pareto_gap_at_its_ends(scale):
    ahead = np.array([[3.0, 4.0], [6.0, 8.0]]) * scale
    np.testing.assert_allclose(gap(gramian(ahead)), 1.0, atol=1e-3)
    against = np.array([[3.0, 4.0], [-6.0, -8.0]]) * scale
    assert gap(gramian(against)) < 2e-3
    assert np.isnan(gap(jnp.zeros((2, 2))))
    alone = jnp.array([[4.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(gap(alone), 1.0, atol=1e-3)
