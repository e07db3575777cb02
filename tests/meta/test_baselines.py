"""Baselines against numbers worked out by hand."""

import numpy as np
import pytest

from dcft_jax.meta.baselines import (
    LEVERAGE_RIDGE,
    METHODS,
    NEIGHBOURS,
    chameleon,
    chameleon_target,
    mean_mixture,
    nearest,
    oracle,
    proportional,
    ridge,
    uniform,
)
from dcft_jax.meta.features import ABILITY, PAIR, permute
from dcft_jax.meta.regret import Solved, solve
from dcft_jax.meta.surrogate import Law
from tests.meta.synthetic_cases import make_case, make_cases

PRIOR_K = np.array([0.5, 0.3, 0.2])


def case_of(names=("a", "b", "c"), sizes=(5.0, 3.0, 2.0), seed=0):
    case = make_case(np.random.default_rng(seed), num_abilities=len(names))
    size_K = np.array(sizes, np.float32)
    features = case.features._replace(size_K=size_K)
    return case._replace(abilities=tuple(names), features=features)


def solved_of(case, best_K):
    K = len(best_K)
    law = Law(0.0, np.zeros(1), np.zeros((1, K)), np.zeros(K), np.zeros((K, K)))
    return Solved(case, law, 0.0, 1.0, np.array(best_K))


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def test_uniform_and_proportional():
    case = case_of()
    np.testing.assert_allclose(uniform([], case, PRIOR_K), 1 / 3)
    np.testing.assert_allclose(proportional([], case, PRIOR_K), [0.5, 0.3, 0.2])


def test_mean_of_one_world_is_the_mean_of_the_mixtures():
    train = [
        solved_of(case_of(), [0.2, 0.2, 0.6]),
        solved_of(case_of(), [0.4, 0.4, 0.2]),
    ]
    found = mean_mixture(train, case_of(), PRIOR_K)
    np.testing.assert_allclose(found, [0.3, 0.3, 0.4], rtol=1e-6)


def test_mean_goes_by_name_and_leaves_what_is_new_at_its_prior():
    train = [solved_of(case_of(), [0.75, 0.15, 0.1])]  # a: 1.5, b: 0.5, c: 0.5 times
    found = mean_mixture(train, case_of(("x", "a", "b")), PRIOR_K)
    expected = np.array([0.5, 0.3 * 1.5, 0.2 * 0.5])
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-6)


def test_nearest_takes_the_log_ratios_of_abilities_that_look_alike():
    # As many copies of a case as there are neighbours: each ability finds itself.
    train = [solved_of(case_of(), [0.2, 0.2, 0.6])] * NEIGHBOURS
    found = nearest(train, case_of(), PRIOR_K)
    np.testing.assert_allclose(found, [0.2, 0.2, 0.6], rtol=1e-6)
    order = [2, 0, 1]
    other = case_of()._replace(features=permute(case_of().features, order))
    np.testing.assert_allclose(
        nearest(train, other, PRIOR_K[order]), np.array([0.6, 0.2, 0.2]), rtol=1e-6
    )


def test_ridge_finds_a_linear_score():
    rng = np.random.default_rng(0)
    train = []
    for seed in range(30):
        case = case_of(sizes=(1.0, 1.0, 1.0), seed=seed)
        score_K = 2.0 * case.features.ability_KF[:, ABILITY.index("alignment")]
        train.append(solved_of(case, softmax(score_K)))
    new = case_of(sizes=(1.0, 1.0, 1.0), seed=99)
    alignment_K = new.features.ability_KF[:, ABILITY.index("alignment")]
    expected_K = softmax(np.log(PRIOR_K) + 2.0 * alignment_K)
    np.testing.assert_allclose(ridge(train, new, PRIOR_K), expected_K, atol=0.01)
    noise = [one._replace(best_K=rng.dirichlet(np.ones(3))) for one in train]
    assert np.abs(ridge(noise, new, PRIOR_K) - PRIOR_K).max() < 0.25


def test_ridge_does_without_a_feature():
    train = solve(make_cases(tasks_per_category=1)[:6], "log-linear")
    case = case_of()
    case.features.ability_KF[1, 2] = np.nan
    for method in (ridge, nearest):
        found = method(train, case, PRIOR_K)
        assert np.all(np.isfinite(found)) and found.sum() == pytest.approx(1.0)


def with_kernel(pair_KK, to_task_K=(0.0, 0.0, 0.0)):
    case = case_of()
    case.features.pair_KKP[:, :, PAIR.index("kernel")] = pair_KK
    case.features.ability_KF[:, ABILITY.index("kernel")] = to_task_K
    return case


def test_chameleon_by_hand():
    # Two alike, one unlike: eigenvalues 1.5, 0.5 and 1 of the three.
    r = 3 * LEVERAGE_RIDGE
    case = with_kernel([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])
    alike, alone = (1.5 / (1.5 + r) + 0.5 / (0.5 + r)) / 2, 1 / (1 + r)
    score_K = np.array([alike, alike, alone]) / (2 * alike + alone)
    found = chameleon([], case, PRIOR_K)
    np.testing.assert_allclose(found, softmax(score_K / 0.2), rtol=1e-6)
    assert found[2] > found[0]


def test_chameleon_does_not_look_at_the_task_and_its_variant_does():
    there = with_kernel(np.eye(3), (0.0, 0.0, 0.8))
    opposite = with_kernel(np.eye(3), (0.8, 0.0, 0.0))
    np.testing.assert_array_equal(
        chameleon([], there, PRIOR_K), chameleon([], opposite, PRIOR_K)
    )
    found = chameleon_target([], there, PRIOR_K)
    # Only the third ability has a part in the task: its share of the scores is 1.
    np.testing.assert_allclose(found, softmax(np.array([0, 0, 5.0])), rtol=1e-6)


def test_chameleon_without_a_kernel_is_the_prior():
    case = with_kernel(np.full((3, 3), np.nan), (np.nan,) * 3)
    for method in (chameleon, chameleon_target):
        np.testing.assert_allclose(method([], case, PRIOR_K), PRIOR_K)


def test_oracle_is_the_best_mean_over_seeds():
    weights_NK = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    case = case_of()._replace(
        weights_NK=weights_NK, loss_N=np.array([1.0, 1.4, 2.0, 1.5])
    )
    np.testing.assert_allclose(oracle([], case, PRIOR_K), [0, 1, 0])


@pytest.mark.parametrize("name", sorted({*METHODS} - {"oracle"}))
def test_no_method_looks_at_the_losses(name):
    train = solve(make_cases(tasks_per_category=1)[:6], "log-linear")
    case = case_of()
    blind = case._replace(
        loss_N=np.full_like(case.loss_N, np.nan), weights_NK=case.weights_NK[::-1]
    )
    first, second = (METHODS[name](train, one, PRIOR_K) for one in (case, blind))
    np.testing.assert_array_equal(first, second)
    assert first.sum() == pytest.approx(1.0) and np.all(first > 0)
