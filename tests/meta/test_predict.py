"""Predictions of new tasks: mixtures, uncertainty, and when the prior is kept."""

import functools

import numpy as np
import pytest

from dcft_jax.meta.domain import distance, experience_hash
from dcft_jax.meta.features import ABILITY, PAIR, TASK, Features, permute
from dcft_jax.meta.fit import fit
from dcft_jax.meta.inputs import standardise
from dcft_jax.meta.predict import (
    ANCHOR,
    STRONGEST,
    WEAKEST,
    anchor_of,
    describe,
    predict,
)
from dcft_jax.meta.regret import solve
from tests.meta.synthetic_cases import OPTIONS, make_cases, make_features

PRIOR_K = np.array([0.6, 0.3, 0.1])


@functools.cache
def cases():
    return make_cases(tasks_per_category=3)


@functools.cache
def fitted():
    found = fit(solve(cases(), "two-domain"), OPTIONS)
    assert found.strength > 0
    return found


def features_of(num_abilities=3, seed=0):
    return make_features(np.random.default_rng(seed), num_abilities)


def changed(features, kind, name, value):
    names = {"task_G": TASK, "ability_KF": ABILITY}[kind]
    array = getattr(features, kind).copy()
    array[..., names.index(name)] = value
    return features._replace(**{kind: array})


def test_a_prediction_is_a_mixture():
    found = predict(fitted(), features_of(), PRIOR_K)
    assert found.trusted and found.reasons == ()
    np.testing.assert_allclose(found.weights_K.sum(), 1.0, rtol=1e-6)
    assert np.all(found.weights_K > 0) and found.weights_K.dtype == np.float32
    assert np.abs(found.weights_K - PRIOR_K).max() > 0.05
    assert np.all(found.stderr_K > 0)
    assert WEAKEST <= found.anchor <= STRONGEST


def test_the_aligned_ability_gets_more():
    features = features_of()
    features.ability_KF[:, ABILITY.index("alignment")] = (-0.1, 0.0, 0.8)
    found = predict(fitted(), features, PRIOR_K)
    assert found.weights_K[2] > 3 * PRIOR_K[2]


def test_order_of_abilities_does_not_matter():
    order = np.array([2, 0, 1])
    found = predict(fitted(), features_of(), PRIOR_K)
    other = predict(fitted(), permute(features_of(), order), PRIOR_K[order])
    np.testing.assert_allclose(other.weights_K, found.weights_K[order], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("task_G", "budget", np.log(1e9)), "budget of task"),
        (("task_G", "parameters", np.log(1e10)), "parameters of task"),
        (("ability_KF", "gain", 90.0), "gain of ability"),
    ],
)
def test_numbers_beyond_training_give_the_prior(change, reason):
    found = predict(fitted(), changed(features_of(), *change), PRIOR_K)
    assert not found.trusted and any(reason in line for line in found.reasons)
    np.testing.assert_array_equal(found.weights_K, PRIOR_K.astype(np.float32))
    assert found.anchor == ANCHOR


def test_numbers_a_little_beyond_training_do_not_matter():
    given = changed(features_of(), "task_G", "budget", np.log(1.8e6))
    assert predict(fitted(), given, PRIOR_K).trusted


def test_more_abilities_than_in_training_give_the_prior():
    for K in (5, 16):
        found = predict(fitted(), features_of(K), np.full(K, 1 / K))
        assert f"{K} abilities, it was fitted on 2 to 4" in found.reasons
        np.testing.assert_allclose(found.weights_K, 1 / K, rtol=1e-6)


def test_too_little_known_gives_the_prior():
    nothing = Features(
        np.full(len(TASK), np.nan, np.float32),
        np.full((3, len(ABILITY)), np.nan, np.float32),
        np.full((3, 3, len(PAIR)), np.nan, np.float32),
        np.ones(3, np.float32),
    )
    found = predict(fitted(), nothing, PRIOR_K)
    assert any("100% of the features" in line for line in found.reasons)
    assert np.all(np.isfinite(found.stderr_K))
    np.testing.assert_allclose(found.weights_K, PRIOR_K, rtol=1e-6)


def test_one_missing_feature_is_no_reason():
    given = changed(features_of(), "ability_KF", "gain", np.nan)
    found = predict(fitted(), given, PRIOR_K)
    assert found.trusted and np.all(np.isfinite(found.weights_K))


def test_unlike_as_a_whole_gives_the_prior():
    # Every number is within its range, all of them at its end at once.
    statistics = fitted().statistics
    features = features_of()
    ability_F = statistics.ability_mean_F + 2.5 * statistics.ability_scale_F
    task_G = statistics.task_mean_G + 2.0 * statistics.task_scale_G
    for name in ("budget", "parameters"):  # the same in all cases
        task_G[TASK.index(name)] = features.task_G[TASK.index(name)]
    given = features._replace(task_G=task_G, ability_KF=np.tile(ability_F, (3, 1)))
    found = predict(fitted(), given, PRIOR_K)
    assert not found.trusted and "as a whole" in found.reasons[-1]


def test_training_cases_are_in_the_domain():
    domain, statistics = fitted().domain, fitted().statistics
    for case in cases():
        found = distance(domain, standardise(statistics, case.features))
        assert found <= domain.max_distance


def test_members_that_disagree_give_the_prior():
    rng = np.random.default_rng(0)
    kernel = fitted().params["direct"]["kernel"]
    noise = 500.0 * rng.standard_normal(kernel.shape).astype(np.float32)
    wild = fitted().params | {"direct": {"kernel": noise}}
    found = predict(fitted()._replace(params=wild), features_of(), PRIOR_K)
    assert not found.trusted and "disagrees" in found.reasons[0]
    np.testing.assert_allclose(found.weights_K, PRIOR_K, rtol=1e-6)


def test_without_strength_there_is_no_correction():
    found = predict(fitted()._replace(strength=0.0), features_of(), PRIOR_K)
    assert not found.trusted and "no correction" in found.reasons[0]


def test_anchor_falls_with_uncertainty():
    anchors = [anchor_of(np.full(3, stderr)) for stderr in (0, 0.2, 0.25, 0.5, 9)]
    assert anchors == pytest.approx([STRONGEST, 2.5, 2.0, 1.0, WEAKEST])


@pytest.mark.parametrize(
    ("prior_K", "message"),
    [
        ([0.5, 0.5], "shape"),
        ([0.5, 0.5, 0.5], "sum to 1"),
        ([1.0, 0.0, 0.0], "positive"),
        ([np.nan, 0.5, 0.5], "positive"),
    ],
)
def test_priors_that_are_no_mixtures(prior_K, message):
    with pytest.raises(ValueError, match=message):
        predict(fitted(), features_of(), np.array(prior_K))


def test_description_says_what_it_is_based_on():
    names = ("maths", "code", "general")
    found = predict(fitted(), features_of(), PRIOR_K)
    text = "\n".join(describe(fitted(), found, names))
    assert "45 cases of 5 categories" in text and "logic" in text
    assert all(f"{w:.1%}" in text for w in found.weights_K)
    given = changed(features_of(), "ability_KF", "gain", 90.0)
    text = "\n".join(describe(fitted(), predict(fitted(), given, PRIOR_K), names))
    assert "Not trusted" in text and "- gain of ability is 90" in text


def test_hash_is_of_all_that_is_in_the_cases():
    first = cases()[:2]
    hashes = {experience_hash(first), experience_hash(cases()[:3])}
    moved = first[0]._replace(loss_N=first[0].loss_N + 1e-6)
    renamed = first[0]._replace(category="other")
    hashes |= {experience_hash([one, first[1]]) for one in (moved, renamed)}
    assert len(hashes) == 4
    assert experience_hash(list(first)) == experience_hash(first)
