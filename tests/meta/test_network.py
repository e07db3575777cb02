"""The network is a function of a set, of what is known of it, and of nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.meta.features import (
    ABILITY,
    PAIR,
    PARTS,
    TASK,
    Features,
    keep_parts,
    permute,
)
from dcft_jax.meta.inputs import (
    DROPPABLE,
    drop,
    measure_statistics,
    pad_inputs,
    standardise,
)
from dcft_jax.meta.network import Shape, correction, init, tilt
from tests.meta.synthetic_cases import make_features

SHAPE = Shape(width=8, heads=2)


@functools.cache
def statistics():
    rng = np.random.default_rng(0)
    return measure_statistics([make_features(rng, 3) for _ in range(8)])


@functools.cache
def params():
    """As after training: no part is 0."""
    start = init(SHAPE, jax.random.key(0))
    leaves, tree = jax.tree.flatten(start)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        leaf + 0.3 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def inputs_of(features: Features):
    return standardise(statistics(), features)


def apply(features: Features, prior_K=None, given=None):
    K = features.num_abilities
    log_prior_K = jnp.zeros(K) if prior_K is None else jnp.log(prior_K)
    given = params() if given is None else given
    return np.asarray(correction(SHAPE, given, inputs_of(features), log_prior_K))


@pytest.mark.parametrize("K", [2, 5, 16])
def test_order_of_abilities_does_not_matter(K):
    rng = np.random.default_rng(K)
    features, order = make_features(rng, K), rng.permutation(K)
    prior_K = rng.dirichlet(np.ones(K))
    ratio_K = apply(features, prior_K)
    assert np.ptp(ratio_K) > 0.01
    np.testing.assert_allclose(
        apply(permute(features, order), prior_K[order]), ratio_K[order], atol=1e-5
    )
    np.testing.assert_allclose(ratio_K.mean(), 0.0, atol=1e-6)


def test_untrained_network_returns_the_prior_bit_for_bit():
    features = make_features(np.random.default_rng(1), 4)
    prior_K = np.array([0.5, 0.3, 0.15, 0.05], np.float32)
    start = init(SHAPE, jax.random.key(3))
    ratio_K = apply(features, prior_K, start)
    assert np.all(ratio_K == 0.0)
    log_K = jnp.log(prior_K)
    np.testing.assert_array_equal(
        tilt(log_K, ratio_K, np.ones(4, bool)), jax.nn.softmax(log_K)
    )


def test_padding_changes_nothing_and_gets_nothing():
    features = make_features(np.random.default_rng(2), 3)
    padded = pad_inputs(inputs_of(features), 6)
    ratio_K = correction(SHAPE, params(), padded, jnp.zeros(6))
    np.testing.assert_allclose(ratio_K[:3], apply(features), atol=1e-6)
    weights_K = tilt(jnp.zeros(6), ratio_K, padded.valid_K)
    assert np.all(weights_K[3:] == 0) and np.all(weights_K[:3] > 0)
    np.testing.assert_allclose(weights_K.sum(), 1.0, rtol=1e-6)


def test_what_is_missing_is_never_seen():
    features = make_features(np.random.default_rng(3), 3)
    full_K = apply(features)
    partly = features.ability_KF.copy()
    partly[1, ABILITY.index("alignment")] = np.nan
    one_K = apply(features._replace(ability_KF=partly))
    assert np.all(np.isfinite(one_K)) and np.abs(one_K - full_K).max() > 1e-4
    nothing = Features(
        np.full(len(TASK), np.nan, np.float32),
        np.full((3, len(ABILITY)), np.nan, np.float32),
        np.full((3, 3, len(PAIR)), np.nan, np.float32),
        features.size_K,
    )
    np.testing.assert_allclose(apply(nothing), 0.0, atol=1e-6)  # by symmetry


@pytest.mark.parametrize("d", range(len(DROPPABLE)))
def test_a_dropped_part_has_no_influence(d):
    first = make_features(np.random.default_rng(4), 3)
    other = make_features(np.random.default_rng(5), 3)
    changed = []
    for array, names, part in zip(
        (first.task_G, first.ability_KF, first.pair_KKP),
        (TASK, ABILITY, PAIR),
        DROPPABLE[d],
        strict=True,
    ):
        index = len(changed)
        mask = np.isin(names, part)
        changed.append(np.where(mask, other[index], array))
    second = Features(*changed, first.size_K)
    assert np.abs(apply(first) - apply(second)).max() > 1e-4
    keep_D = np.ones(len(DROPPABLE), np.float32)
    keep_D[d] = 0.0
    ratios = [
        correction(SHAPE, params(), drop(inputs_of(one), keep_D), jnp.zeros(3))
        for one in (first, second)
    ]
    np.testing.assert_array_equal(*ratios)


def test_dropped_is_the_same_as_missing():
    features = make_features(np.random.default_rng(6), 3)
    for part in ("sizes", "losses"):
        keep_D = np.array([float(group in PARTS[part]) for group in DROPPABLE])
        dropped = drop(inputs_of(features), keep_D)
        for found, expected in zip(
            dropped, inputs_of(keep_parts(features, part)), strict=True
        ):
            np.testing.assert_allclose(found, expected, atol=1e-7)


def test_no_ability_starves():
    features = make_features(np.random.default_rng(7), 4)
    wild = jax.tree.map(lambda leaf: 1e4 * leaf, params())
    ratio_K = apply(features, given=wild)
    assert np.all(np.isfinite(ratio_K))
    assert np.ptp(ratio_K) <= 2 * SHAPE.bound + 1e-5


def test_gradients_are_finite_next_to_padding():
    padded = pad_inputs(inputs_of(make_features(np.random.default_rng(8), 2)), 4)

    def loss(given):
        ratio_K = correction(SHAPE, given, padded, jnp.zeros(4))
        return tilt(jnp.zeros(4), ratio_K, padded.valid_K)[0]

    leaves = jax.tree.leaves(jax.grad(loss)(params()))
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves)
    assert any(np.any(leaf != 0) for leaf in leaves)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width=9"):
        init(Shape(width=9, heads=2), jax.random.key(0))


def test_statistics_are_of_known_values_only():
    rng = np.random.default_rng(9)
    cases = [make_features(rng, 3) for _ in range(4)]
    loss, gain = ABILITY.index("loss"), ABILITY.index("gain")
    for features in cases:
        features.ability_KF[:, gain] = np.nan
    cases[0].ability_KF[:, loss] = np.nan
    found = measure_statistics(cases)
    known = np.concatenate([features.ability_KF[:, loss] for features in cases[1:]])
    np.testing.assert_allclose(found.ability_mean_F[loss], known.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.ability_scale_F[loss], known.std(), rtol=1e-5)
    assert found.ability_mean_F[gain] == 0 and np.isinf(found.ability_scale_F[gain])
    new = standardise(found, make_features(rng, 3))
    assert np.all(new.ability_KF[:, gain] == 0)
    assert np.all(new.known_ability_KF[:, gain] == 0)
    assert found.task_scale_G[TASK.index("budget")] == 1  # the same everywhere
