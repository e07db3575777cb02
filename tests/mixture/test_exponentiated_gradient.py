import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax.mixture.exponentiated_gradient import (
    LOWEST_LOG_WEIGHT,
    exponentiated_gradient,
)
from dcft_jax.mixture.simplex import log_of


def test_it_is_the_formula_and_ignores_a_constant():
    weights, step = np.array([0.2, 0.3, 0.5]), np.array([0.4, -1.0, 2.0])
    expected = weights * np.exp(step)
    expected /= expected.sum()
    for shift in (0.0, 300.0):
        log_K = exponentiated_gradient(log_of(weights), jnp.asarray(step + shift))
        np.testing.assert_allclose(np.exp(log_K), expected, rtol=1e-4)


def test_an_ability_without_information_keeps_its_weight():
    weights = np.array([0.2, 0.3, 0.5])
    step = jnp.array([1.0, jnp.nan, -1.0])
    found = np.exp(exponentiated_gradient(log_of(weights), step))
    raw = np.array([0.2 * np.e, 0.5 / np.e])
    expected = 0.7 * raw / raw.sum()
    np.testing.assert_allclose(found, [expected[0], 0.3, expected[1]], rtol=1e-5)
    nothing = exponentiated_gradient(log_of(weights), jnp.full(3, jnp.nan))
    np.testing.assert_allclose(np.exp(nothing), weights, rtol=1e-6)


def test_it_survives_any_steps_and_comes_back():
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((100_000, 3)) * 10.0 ** rng.uniform(
        -3, 38, (100_000, 1)
    )
    steps[::7, 1] = np.nan
    steps[::11] = np.inf
    steps = jnp.asarray(np.clip(steps, -3e38, np.inf), jnp.float32)

    def one(log_K, step_K):
        log_K = exponentiated_gradient(log_K, step_K)
        return log_K, (jnp.sum(jnp.exp(log_K)), jnp.min(log_K))

    end, (total, lowest) = jax.jit(lambda s: jax.lax.scan(one, log_of(np.ones(3)), s))(
        steps
    )
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert np.all(np.asarray(lowest) > LOWEST_LOG_WEIGHT - 2)
    for _ in range(40):
        end = exponentiated_gradient(end, jnp.array([0.0, 1.0, 0.0]))
    assert np.exp(end)[1] > 0.9
