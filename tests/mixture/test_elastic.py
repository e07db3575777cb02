"""States of fewer abilities in the shape of more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture import RULES, mirror_descent
from dcft_jax.mixture.elastic import carry_over

SMALL, LARGE = jnp.array([0.25, 0.75]), jnp.array([0.2, 0.3, 0.5])


def test_new_abilities_enter_at_the_prior_and_others_keep_their_proportions():
    rule = mirror_descent()
    old, fresh = rule.init(SMALL), rule.init(LARGE)
    new = carry_over(old, fresh, [2, 0], added=0.3)
    weights = np.exp(new.log_weights_K)
    np.testing.assert_allclose(weights, [0.7 * 0.75, 0.3, 0.7 * 0.25], rtol=1e-5)
    np.testing.assert_array_equal(new.log_prior_K, fresh.log_prior_K)
    assert new.scores.average_JK.shape == (2, 3)


def test_matrices_go_to_their_places():
    rule = RULES["aioli"]()
    old, fresh = rule.init(SMALL), rule.init(LARGE)
    old = jax.tree.map(lambda x: x + jnp.ones_like(x), old)
    new = carry_over(old, fresh, [0, 2], added=0.3)
    expected = [[1, 0, 1], [0, 0, 0], [1, 0, 1]]
    np.testing.assert_array_equal(new.drop_KK, expected)


def test_by_names_and_leading_parts():
    fresh = {"tiers": jnp.zeros((3, 4)), "examples": jnp.full((3, 2), -1.0)}
    old = {"tiers": np.ones((2, 1)), "examples": np.ones((2, 5))}
    new = carry_over(old, fresh, [0, 1], added=0.5)
    np.testing.assert_array_equal(new["tiers"], [[1, 0, 0, 0]] * 2 + [[0] * 4])
    np.testing.assert_array_equal(new["examples"], [[1, 1]] * 2 + [[-1, -1]])


def test_another_kind_of_state_is_refused():
    fresh = RULES["mirror_descent"]().init(LARGE)
    with pytest.raises(KeyError):
        carry_over({"log_weights_K": np.zeros(2)}, fresh, [0, 1], 0.3)
    with pytest.raises(TypeError, match="has the shape"):
        carry_over({"x": np.zeros((2, 2))}, {"x": jnp.zeros(3)}, [0, 1], 0.3)
