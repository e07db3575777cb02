"""Slots reduce to abilities as if the ability gradients had been formed."""

import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.conflict import (
    ability_gramian,
    combine,
    diagnose,
    resolve_gradients,
    slot_coefficients,
    slot_gramian,
)
from dcft_jax.conflict.baselines import mean
from dcft_jax.conflict.cones import dualproj
from dcft_jax.conflict.projections import pcgrad

ABILITY_S = np.array([0, 1, 1, 0, 2, 1])
COUNT_S = np.array([5, 3, 0, 7, 4, 9])


def slot_rows(seed=0):
    rows = np.random.default_rng(seed).standard_normal((6, 20)).astype(np.float32)
    return rows * (COUNT_S > 0)[:, None]


def ability_rows(rows, keep=slice(None)):
    sums = np.zeros((4, rows.shape[1]))
    counts = np.zeros(4)
    for s in np.arange(6)[keep]:
        sums[ABILITY_S[s]] += rows[s]
        counts[ABILITY_S[s]] += COUNT_S[s]
    return sums / np.maximum(counts, 1)[:, None]


def test_equals_the_gramian_of_the_token_means():
    rows = slot_rows()
    gram, mask, A_KS = ability_gramian(slot_gramian(rows), COUNT_S, ABILITY_S, 4)
    expected = ability_rows(rows)
    np.testing.assert_allclose(gram, expected @ expected.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mask, [True, True, True, False])
    c_K = jnp.array([0.5, 0.3, 0.2, 0.0])
    update = combine(rows, slot_coefficients(c_K, A_KS))
    np.testing.assert_allclose(update, np.asarray(c_K) @ expected, rtol=1e-5, atol=1e-6)


def test_a_bad_slot_costs_itself_only():
    rows = slot_rows()
    rows[3, 2] = np.nan
    gram, mask, A_KS = ability_gramian(slot_gramian(rows), COUNT_S, ABILITY_S, 4)
    expected = ability_rows(rows, keep=[0, 1, 2, 4, 5])
    np.testing.assert_allclose(gram, expected @ expected.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mask, [True, True, True, False])
    c_S = slot_coefficients(jnp.array([0.5, 0.3, 0.2, 0.0]), A_KS)
    assert c_S[3] == 0
    assert np.all(np.isfinite(combine(rows, c_S)))


def test_an_ability_with_only_bad_slots_is_absent():
    rows = slot_rows()
    rows[4] = np.inf
    gram, mask, _ = ability_gramian(slot_gramian(rows), COUNT_S, ABILITY_S, 4)
    np.testing.assert_array_equal(mask, [True, True, False, False])
    assert np.all(np.asarray(gram)[2] == 0)


def test_slots_of_nobody_are_ignored():
    ability_S = np.where(ABILITY_S == 1, -1, ABILITY_S)
    _, mask, A_KS = ability_gramian(slot_gramian(slot_rows()), COUNT_S, ability_S, 4)
    np.testing.assert_array_equal(mask, [True, False, True, False])
    assert np.all(np.asarray(A_KS)[:, ABILITY_S == 1] == 0)


def test_diagnostics_of_a_known_conflict():
    rows = np.array([[1.0, 0], [-1, 1], [0, 0], [0, 2]], np.float32)
    weights = np.array([0.5, 0.2, 0.1, 0.2], np.float32)
    info = diagnose(rows @ rows.T, weights, jnp.array([0.5, 0.5, 0.0, 0.2]))
    np.testing.assert_allclose(info.min_cosine, -np.sqrt(0.5), rtol=1e-6)
    np.testing.assert_allclose(info.conflict_rate, 1 / 3)
    assert np.all(np.isnan(np.asarray(info.cosines_KK)[2]))
    assert np.sum(np.isnan(info.cosines_KK)) == 7
    assert info.acted
    change = np.linalg.norm(0.3 * rows[1]) / np.linalg.norm(weights @ rows)
    np.testing.assert_allclose(info.change, change, rtol=1e-6)


def test_diagnostics_without_conflict_or_company():
    alone = diagnose(
        jnp.array([[4.0, 0], [0, 0]]), jnp.array([0.5, 0.5]), jnp.array([0.5, 0])
    )
    assert np.isnan(alone.min_cosine) and np.isnan(alone.conflict_rate)
    assert not alone.acted and alone.change == 0


@pytest.mark.parametrize("factory", [mean, pcgrad, dualproj])
def test_resolve_gradients(factory):
    rng = np.random.default_rng(0)
    grads = {
        "a": rng.standard_normal((3, 4, 5)).astype(np.float32),
        "b": rng.standard_normal((3, 7)).astype(np.float32),
    }
    grads["a"][1] = -grads["a"][0] - 0.1
    weights = np.array([0.2, 0.5, 0.3], np.float32)
    resolver = factory()
    update, _, info = resolve_gradients(grads, weights, resolver, resolver.init(3))
    for name, g in grads.items():
        expected = np.tensordot(info.coefficients_K, g, 1)
        np.testing.assert_allclose(update[name], expected, rtol=1e-5, atol=1e-6)
    assert bool(info.acted) == (factory is not mean)
    assert (float(info.change) > 0.01) == (factory is not mean)


@pytest.mark.parametrize("factory", [pcgrad, dualproj])
def test_without_conflict_the_update_is_the_mean_bit_by_bit(factory):
    grads = np.abs(np.random.default_rng(0).standard_normal((3, 50))).astype(np.float32)
    weights = np.array([0.2, 0.5, 0.3], np.float32)
    resolver, plain = factory(), mean()
    update, _, info = resolve_gradients(grads, weights, resolver, resolver.init(3))
    expected, _, _ = resolve_gradients(grads, weights, plain, plain.init(3))
    np.testing.assert_array_equal(update, expected)
    assert not info.acted
