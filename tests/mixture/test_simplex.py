import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcft_jax.mixture import cap, mix_floor, prior

SIZES = [100, 400, 1500]


def test_floor():
    weights = mix_floor(jnp.array([1.0, 0.0, 0.0]), 0.3)
    np.testing.assert_allclose(weights, [0.8, 0.1, 0.1], rtol=1e-6)


jitted_cap = jax.jit(cap)


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 10_000),
    num_abilities=st.sampled_from([2, 3, 5, 8]),
    tight=st.booleans(),
    concentration=st.sampled_from([0.05, 0.5, 5.0]),
)
def test_cap_is_the_projection_in_relative_entropy(
    seed, num_abilities, tight, concentration
):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(num_abilities, concentration))
    caps = rng.dirichlet(np.ones(num_abilities)) * (1.0 if tight else 1.7)
    caps = caps if tight else np.minimum(caps + 0.05, 1.0)
    if caps.sum() < 1:
        caps = caps / caps.sum()
    capped = np.asarray(jitted_cap(jnp.float32(weights), jnp.float32(caps)))
    np.testing.assert_allclose(capped.sum(), 1.0, atol=1e-5)
    assert np.all(capped <= caps + 1e-6) and np.all(capped >= 0)
    # Optimality: one ratio to the old weight for all that are below their caps, and no
    # larger one for those that are at theirs.
    ratio = capped / np.maximum(weights, 1e-12)
    free = (capped < caps - 1e-5) & (weights > 1e-6)
    if free.any():
        assert np.ptp(ratio[free]) <= 1e-3 * ratio[free].max()
        assert np.all(ratio[weights > 1e-6] <= ratio[free].max() * (1 + 1e-3))


def test_weights_below_their_caps_come_back_unchanged():
    weights = jnp.array([0.2, 0.3, 0.5])
    np.testing.assert_array_equal(cap(weights, jnp.array([0.2, 0.4, 0.9])), weights)


def test_what_a_cap_sets_free_can_go_to_a_weight_of_zero():
    capped = cap(jnp.array([1.0, 0.0, 0.0]), jnp.array([0.4, 1.0, 1.0]))
    np.testing.assert_allclose(capped, [0.4, 0.3, 0.3], rtol=1e-5)


def test_priors():
    np.testing.assert_allclose(prior("uniform", SIZES), [1 / 3] * 3, rtol=1e-6)
    np.testing.assert_allclose(prior("proportional", SIZES), [0.05, 0.2, 0.75])
    np.testing.assert_allclose(prior("temperature", SIZES, 1.0), [0.05, 0.2, 0.75])
    roots = np.sqrt(SIZES)
    np.testing.assert_allclose(
        prior("temperature", SIZES, 2.0), roots / roots.sum(), rtol=1e-6
    )
    given_K = prior("given", SIZES, given=(0.2, 0.3, 0.5))
    np.testing.assert_allclose(given_K, [0.2, 0.3, 0.5])
    assert given_K.dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(kind="size"), "mixture.prior is 'size', expected one of"),
        (dict(kind="uniform", sizes_K=[1, 0, 2]), "sizes"),
        (dict(kind="temperature", temperature=0.0), "temperature is 0.0"),
        (dict(kind="given"), "mixture.weights is None, expected 3"),
        (dict(kind="given", given=(0.5, 0.5)), "expected 3 weights"),
        (dict(kind="given", given=(0.5, 0.5, 0.0)), "must be > 0"),
        (dict(kind="given", given=(0.5, float("nan"), 0.5)), "must be > 0"),
        (dict(kind="given", given=(0.5, 0.2, 0.2)), r"0\.2\) and sums to 0\.9,"),
        (dict(kind="given", given=(0.2, 0.3, 0.500002)), "sums to 1.000002"),
    ],
)
def test_bad_priors_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        prior(**{"sizes_K": SIZES, **arguments})
