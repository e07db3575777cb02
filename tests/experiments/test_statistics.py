import numpy as np
import pytest
from scipy import stats

from experiments.statistics import (
    bootstrap_interval,
    compare,
    p_below,
    t_interval,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("num", [2, 3, 9])
def test_against_scipy(num: int):
    value_N, baseline_N = RNG.normal(0.1, 1, num), RNG.normal(0, 1, num)
    found = compare(value_N, baseline_N, margin=0.3)
    test = stats.ttest_rel(value_N, baseline_N)
    np.testing.assert_allclose(found.t_interval, test.confidence_interval(0.95))
    assert found.mean == pytest.approx(np.mean(value_N - baseline_N))
    difference_N = value_N - baseline_N
    less = stats.ttest_1samp(difference_N, 0.0, alternative="less").pvalue
    below = stats.ttest_1samp(difference_N, 0.3, alternative="less").pvalue
    above = stats.ttest_1samp(difference_N, -0.3, alternative="greater").pvalue
    assert found.superior_p == pytest.approx(less)
    assert found.non_inferior_p == pytest.approx(below)
    assert found.equivalent_p == pytest.approx(max(below, above))


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_bootstrap_against_scipy(level: float):
    difference_N = RNG.exponential(1.0, 12)
    reference = stats.bootstrap(
        (difference_N,),
        np.mean,
        confidence_level=level,
        n_resamples=50_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    spread = reference.high - reference.low
    found = bootstrap_interval(difference_N, level)
    np.testing.assert_allclose(found, reference, atol=0.04 * spread)


def test_bootstrap_of_three_pairs_is_their_range():
    difference_N = np.array([0.5, -1.0, 2.0])
    np.testing.assert_allclose(bootstrap_interval(difference_N), (-1.0, 2.0))


@pytest.mark.parametrize(
    ("interval", "num", "coverage"),
    # Of three pairs the bootstrap covers 3/4, as its docstring says.
    [(t_interval, 3, 0.95), (t_interval, 10, 0.95), (bootstrap_interval, 3, 0.75)],
)
def test_coverage(interval, num: int, coverage: float):
    trials = 1500
    truth = 0.7
    intervals = (interval(RNG.normal(truth, 2.0, num)) for _ in range(trials))
    held = np.mean([low <= truth <= high for low, high in intervals])
    error = np.sqrt(coverage * (1 - coverage) / trials)
    assert abs(held - coverage) < 4 * error


def test_rates_of_false_claims():
    trials, num, margin = 4000, 4, 1.0
    draws_TN = RNG.normal(margin, 0.7, (trials, num))  # worse by exactly the margin
    false = np.mean([p_below(draw_N, margin) < 0.05 for draw_N in draws_TN])
    assert abs(false - 0.05) < 4 * np.sqrt(0.05 * 0.95 / trials)
    claimed = [
        compare(draw_N, np.zeros(num), margin).equivalent_p < 0.05
        for draw_N in draws_TN[:500]
    ]
    assert np.mean(claimed) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 500)


def test_power_of_equivalence():
    near_N = RNG.normal(0.0, 0.1, 6)
    found = compare(near_N, np.zeros(6), margin=1.0)
    assert found.equivalent_p < 0.001
    assert compare(near_N - 5.0, np.zeros(6), 1.0).equivalent_p > 0.999
    assert compare(near_N - 5.0, np.zeros(6), 1.0).non_inferior_p < 0.001


def test_equal_differences_are_certain():
    found = compare([1.5, 2.5, 3.5], [1.0, 2.0, 3.0], margin=1.0)
    assert found.t_interval == found.bootstrap_interval == (0.5, 0.5)
    assert (found.superior_p, found.non_inferior_p) == (1.0, 0.0)
    assert compare([1.0, 2.0], [1.0, 2.0], 0.1).superior_p == 1.0


def test_one_pair_says_nothing_about_its_error():
    found = compare([1.0], [2.0], margin=0.1)
    assert found.mean == -1.0
    uncertain = (*found.t_interval, *found.bootstrap_interval, found.non_inferior_p)
    assert np.isnan([*uncertain, found.superior_p, found.equivalent_p]).all()


@pytest.mark.parametrize(
    ("values", "baselines", "margin", "level", "message"),
    [
        ([1.0, 2.0], [1.0], 0.1, 0.95, "expected pairs"),
        ([], [], 0.1, 0.95, "expected pairs"),
        ([1.0, np.nan], [1.0, 1.0], 0.1, 0.95, "must be finite"),
        ([1.0], [1.0], 0.0, 0.95, "margin is 0.0"),
        ([1.0], [1.0], 0.1, 1.0, "level 1.0"),
    ],
)
def test_bad_input(values, baselines, margin, level, message):
    with pytest.raises(ValueError, match=message):
        compare(values, baselines, margin, level)
