"""Estimates against scipy, closed forms and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcft_jax.evaluation.statistics import (
    Estimate,
    accuracy,
    bits_per_byte,
    chance_of_choices,
    choice_accuracy,
    majority_chance,
    mean_pass_at_k,
    specialist_normalised,
)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 400), st.data())
def test_wilson_interval_is_that_of_scipy(n, data):
    stats = pytest.importorskip("scipy.stats")
    right = data.draw(st.integers(0, n))
    estimate = accuracy(np.arange(n) < right)
    expected = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert estimate.value == right / n and estimate.n == n
    np.testing.assert_allclose(
        [estimate.low, estimate.high], [expected.low, expected.high], atol=1e-12
    )
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_wilson_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    for p in (0.05, 0.5, 0.97):
        drawn = [accuracy(rng.random(60) < p) for _ in range(2000)]
        covered = np.mean([e.low <= p <= e.high for e in drawn])
        assert 0.92 < covered < 0.98


def test_standard_error_of_accuracy():
    estimate = accuracy([1, 1, 0, 1, 0, 1])
    sample = np.array([1, 1, 0, 1, 0, 1])
    assert estimate.stderr == pytest.approx(sample.std(ddof=1) / np.sqrt(6))


def test_no_example_is_nan_and_one_has_no_standard_error():
    empty = accuracy([])
    assert empty.n == 0 and all(
        map(math.isnan, (empty.value, empty.stderr, empty.low, empty.high))
    )
    one = accuracy([True])
    assert one.value == 1 and math.isnan(one.stderr) and 0 < one.low < 1


@pytest.mark.parametrize(
    "bad, named", [([0.5], "0.5"), ([np.nan], "nan"), ([[1]], r"\(1, 1\)")]
)
def test_what_is_not_right_or_wrong_is_refused(bad, named):
    with pytest.raises(ValueError, match=named):
        accuracy(bad)


def test_chance_is_what_guessing_gets():
    rng = np.random.default_rng(1)
    num_choices = np.array([2, 4, 5])
    guesses = rng.integers(0, num_choices, (100_000, 3))
    assert chance_of_choices(num_choices) == pytest.approx((1 / 2 + 1 / 4 + 1 / 5) / 3)
    assert np.mean(guesses == 0) == pytest.approx(
        chance_of_choices(num_choices), abs=0.01
    )
    with pytest.raises(ValueError, match="num_choices"):
        chance_of_choices([])
    with pytest.raises(ValueError, match=r"num_choices holds 0\.0"):
        chance_of_choices([3, 0])


@given(st.lists(st.integers(0, 4), min_size=1))
def test_majority_chance_is_the_best_constant_answer(golds):
    best = max(np.mean(np.array(golds) == c) for c in range(5))
    assert majority_chance(golds) == pytest.approx(best)


def test_majority_chance_needs_a_question():
    with pytest.raises(ValueError, match="golds"):
        majority_chance([])


def test_bits_per_byte_of_a_uniform_code():
    # Uniform over 256 symbols of one byte: 8 bits per byte, and no doubt about it.
    lengths = np.array([3, 10, 200])
    estimate = bits_per_byte(lengths * math.log(256), lengths)
    assert estimate.value == pytest.approx(8.0)
    assert estimate.stderr == pytest.approx(0.0, abs=1e-9)


def test_bits_per_byte_agrees_with_the_bootstrap():
    rng = np.random.default_rng(2)
    lengths = rng.integers(5, 400, 500)
    nats = lengths * rng.gamma(4.0, 0.2, 500)
    estimate = bits_per_byte(nats, lengths)
    draws = rng.integers(0, 500, (4000, 500))
    resampled = nats[draws].sum(1) / lengths[draws].sum(1) / math.log(2)
    assert estimate.value == pytest.approx(nats.sum() / lengths.sum() / math.log(2))
    assert estimate.stderr == pytest.approx(resampled.std(), rel=0.06)
    low, high = np.quantile(resampled, [0.025, 0.975])
    np.testing.assert_allclose([estimate.low, estimate.high], [low, high], rtol=0.01)


def test_bits_per_byte_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"\(2,\) and num_bytes \(3,\)"):
        bits_per_byte([1.0, 2.0], [1, 2, 3])
    with pytest.raises(ValueError, match="num_bytes holds -1"):
        bits_per_byte([1.0, 2.0], [1, -1])


def test_length_normalisation_undoes_the_bonus_of_short_choices():
    logliks = [[-4.0, -6.0], [-1.0, -9.0, -9.5]]
    lengths = [[4, 12], [2, 9, 38]]  # per byte: -1, -0.5 and -0.5, -1, -0.25
    scored = choice_accuracy(logliks, lengths, [1, 2])
    assert (scored.acc.value, scored.acc_norm.value) == (0.0, 1.0)
    again = choice_accuracy(logliks, lengths, [0, 0])
    assert (again.acc.value, again.acc_norm.value) == (1.0, 0.0)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**31))
def test_equal_lengths_leave_nothing_to_normalise(num_choices, length, seed):
    rng = np.random.default_rng(seed)
    logliks = -rng.random((20, num_choices))
    gold = rng.integers(0, num_choices, 20)
    scored = choice_accuracy(
        list(logliks), [[length] * num_choices] * 20, [int(g) for g in gold]
    )
    assert scored.acc == scored.acc_norm
    assert scored.acc.value == np.mean(logliks.argmax(1) == gold)


@pytest.mark.parametrize(
    "logliks, lengths, gold, named",
    [
        ([[-1.0]], [[1]], [], "1, 1 and 0"),
        ([[-1.0, math.nan]], [[1, 1]], [0], "question 0: logliks holds nan"),
        ([[-1.0, -2.0]], [[1]], [0], "question 0"),
        ([[-1.0, -2.0]], [[1, 0]], [0], "lengths holds 0"),
        ([[-1.0], [-1.0]], [[1], [1]], [0, 1], "question 1: gold=1"),
    ],
)
def test_malformed_questions_are_named(logliks, lengths, gold, named):
    with pytest.raises(ValueError, match=named):
        choice_accuracy(logliks, lengths, gold)


def test_pass_at_1_is_the_mean_share_of_correct_samples():
    n, c = np.array([4, 10, 5]), np.array([1, 10, 0])
    estimate = mean_pass_at_k(n, c, 1)
    assert estimate.value == pytest.approx(np.mean(c / n))
    assert estimate.stderr == pytest.approx(np.std(c / n, ddof=1) / np.sqrt(3))
    assert 0 <= estimate.low <= estimate.high <= 1


def test_standard_error_of_pass_at_k_covers_problems_and_samples():
    rng = np.random.default_rng(3)
    n, k, problems = 8, 3, 80

    def run():
        p = rng.beta(0.5, 1.5, problems)  # problems differ, and so do samples
        return mean_pass_at_k(np.full(problems, n), rng.binomial(n, p), k)

    runs = [run() for _ in range(400)]
    spread = np.std([e.value for e in runs])
    assert np.mean([e.stderr for e in runs]) == pytest.approx(spread, rel=0.1)


def test_pass_at_k_names_what_is_wrong():
    with pytest.raises(ValueError, match="k=5"):
        mean_pass_at_k([4, 5], [1, 1], 5)
    with pytest.raises(ValueError, match=r"\(2,\)"):
        mean_pass_at_k([4, 5], [1], 1)


def estimate(value: float, stderr: float) -> Estimate:
    return Estimate(value, stderr, math.nan, math.nan, 100)


def test_base_is_0_and_specialist_is_1():
    base, specialist = estimate(0.2, 0.01), estimate(0.6, 0.01)
    for score, expected in ((base, 0.0), (specialist, 1.0), (estimate(0.4, 0.0), 0.5)):
        normalised = specialist_normalised(score, base, specialist)
        assert normalised is not None
        assert normalised.value == pytest.approx(expected)


def test_delta_method_agrees_with_simulation():
    rng = np.random.default_rng(4)
    score, base, specialist = estimate(0.5, 0.02), estimate(0.2, 0.015), None
    for specialist in (estimate(0.7, 0.03), estimate(0.45, 0.01)):
        s, b, p = (
            e.value + e.stderr * rng.normal(size=200_000)
            for e in (score, base, specialist)
        )
        normalised = specialist_normalised(score, base, specialist)
        assert normalised is not None
        assert normalised.stderr == pytest.approx(np.std((s - b) / (p - b)), rel=0.05)


def test_losses_go_the_other_way_and_give_the_same():
    up = specialist_normalised(
        estimate(0.4, 0.01), estimate(0.2, 0.02), estimate(0.7, 0.03)
    )
    down = specialist_normalised(
        estimate(-0.4, 0.01), estimate(-0.2, 0.02), estimate(-0.7, 0.03)
    )
    assert up is not None and down is not None
    assert (up.value, up.stderr) == pytest.approx((down.value, down.stderr))


@pytest.mark.parametrize("gain, defined", [(0.0, False), (0.099, False), (0.101, True)])
def test_undefined_when_the_specialist_learnt_nothing(gain, defined):
    base, specialist = estimate(0.2, 0.03), estimate(0.2 + gain, 0.04)
    assert (specialist_normalised(base, base, specialist) is not None) == defined


def test_undefined_when_an_error_is_unknown():
    base = estimate(0.2, math.nan)
    assert specialist_normalised(base, base, estimate(0.9, 0.01)) is None
