"""The ensemble learns what the features say, and knows when they say nothing."""

import functools

import numpy as np
import pytest

from dcft_jax.meta.baselines import mean_mixture, proportional, uniform
from dcft_jax.meta.fit import fit
from dcft_jax.meta.fitted import load, save
from dcft_jax.meta.predict import predict
from dcft_jax.meta.regret import regret, solve
from tests.meta.synthetic_cases import OPTIONS, make_cases

HELD_OUT = "logic"


@functools.cache
def world(informative: bool):
    """Cases to learn from, cases of another category, and what was learnt."""
    solved = solve(make_cases(informative, tasks_per_category=4), "two-domain")
    train = [one for one in solved if one.case.category != HELD_OUT]
    test = [one for one in solved if one.case.category == HELD_OUT]
    return train, test, fit(train, OPTIONS)


def proportional_prior(one):
    return one.case.features.size_K / one.case.features.size_K.sum()


def mean_regret(test, mixture_of):
    return np.mean([regret(one.law, mixture_of(one)) / one.spread for one in test])


def predicted(fitted):
    return lambda one: (
        predict(fitted, one.case.features, proportional_prior(one)).weights_K
    )


def baseline(method, train):
    return lambda one: method(train, one.case, proportional_prior(one))


def test_what_alignment_tells_is_learnt_for_new_categories():
    train, test, fitted = world(True)
    found = mean_regret(test, predicted(fitted))
    for method in (uniform, proportional, mean_mixture):
        assert found < 0.6 * mean_regret(test, baseline(method, train)), method
    assert fitted.strength > 0
    assert fitted.held_out_regret < 0.6 * fitted.prior_regret


def test_features_that_say_nothing_do_little_harm():
    train, test, fitted = world(False)
    found = mean_regret(test, predicted(fitted))
    assert found < mean_regret(test, baseline(mean_mixture, train)) + 0.1
    assert fitted.held_out_regret <= fitted.prior_regret


def test_a_fit_is_the_same_twice():
    train, _, fitted = world(True)
    again = fit(train, OPTIONS)
    other = fit(train, OPTIONS._replace(seed=1))
    case = train[0].case
    prior_K = proportional_prior(train[0])
    expected_K = predict(fitted, case.features, prior_K).weights_K
    np.testing.assert_array_equal(
        predict(again, case.features, prior_K).weights_K, expected_K
    )
    assert np.any(predict(other, case.features, prior_K).weights_K != expected_K)


def test_the_file_is_the_fit(tmp_path):
    train, test, fitted = world(True)
    path = tmp_path / "folder" / "meta.safetensors"
    save(fitted, path)
    again = load(path)
    assert again.domain.experience == fitted.domain.experience
    assert again.domain.categories == fitted.domain.categories
    for one in (*train[:3], *test[:3]):
        prior_K = proportional_prior(one)
        before = predict(fitted, one.case.features, prior_K)
        after = predict(again, one.case.features, prior_K)
        for left, right in zip(before, after, strict=True):
            np.testing.assert_array_equal(left, right)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def rewritten(path, old, new):
    content = path.read_bytes()
    assert old in content and len(old) == len(new)
    path.write_bytes(content.replace(old, new))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "meta.safetensors"
    with pytest.raises(FileNotFoundError, match=r"meta\.safetensors"):
        load(path)
    fitted = world(True)[2]
    # The header is JSON within JSON.
    for old, new, message in (
        (rb"\"version\": 1", rb"\"version\": 7", "version 7"),
        (rb"\"alignment\"", rb"\"elignment\"", "elignment"),
        (b"params/head/bias", b"params/heed/bias", "params/head/bias"),
        (b"dcft_jax.meta", b"dcft_jax.beta", "no fitted"),
    ):
        save(fitted, path)
        rewritten(path, old, new)
        with pytest.raises(ValueError, match=message):
            load(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"meta\.safetensors"):
        load(path)


def test_one_task_is_too_few():
    train, _, _ = world(True)
    with pytest.raises(ValueError, match="at least 2 tasks"):
        fit(train[:1], OPTIONS)


@pytest.mark.parametrize(
    "change", [{"members": 0}, {"steps": 0}, {"batch": 0}, {"missing": 1.0}]
)
def test_options_out_of_range(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        fit(world(True)[0], OPTIONS._replace(**change))
