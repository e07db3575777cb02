"""pass@k against the binomial formula, brute force and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcft_jax.evaluation.verifiers import pass_at_k


@st.composite
def counts(draw):
    n = draw(st.integers(1, 300))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@settings(deadline=None)
@given(counts())
def test_equation_1_in_exact_integers(sizes):
    n, c, k = sizes
    exact = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert pass_at_k(n, c, k) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("n, c, k", [(5, 2, 3), (6, 1, 2), (4, 4, 1), (6, 0, 6)])
def test_share_of_subsets_with_a_correct_sample(n, c, k):
    subsets = list(itertools.combinations(range(n), k))
    solved = sum(any(i < c for i in subset) for subset in subsets)
    assert pass_at_k(n, c, k) == pytest.approx(solved / len(subsets))


def test_unbiased_where_the_plug_in_estimate_is_not():
    rng = np.random.default_rng(0)
    n, k, p = 10, 4, 0.2
    drawn = rng.binomial(n, p, 20_000)
    truth = 1 - (1 - p) ** k
    by_count = np.array([pass_at_k(n, c, k) for c in range(n + 1)])
    standard_error = by_count[drawn].std() / np.sqrt(len(drawn))
    assert abs(by_count[drawn].mean() - truth) < 4 * standard_error
    plug_in = 1 - (1 - drawn / n) ** k
    assert plug_in.mean() < truth - 4 * standard_error


def test_large_counts_neither_overflow_nor_take_long():
    n = 10**9
    assert pass_at_k(n, n // 2, 10) == pytest.approx(1 - 0.5**10, rel=1e-6)
    assert pass_at_k(n, 1, n // 2) == pytest.approx(0.5)
    assert pass_at_k(n, 0, n) == 0.0
    assert pass_at_k(n, 1, n) == 1.0


@settings(deadline=None)
@given(counts())
def test_a_probability_that_grows_with_k_and_c(sizes):
    n, c, k = sizes
    value = pass_at_k(n, c, k)
    assert 0.0 <= value <= 1.0
    assert k == n or pass_at_k(n, c, k + 1) >= value
    assert c == n or pass_at_k(n, c + 1, k) >= value


@pytest.mark.parametrize(
    "n, c, k, named",
    [
        (3, 4, 1, "num_correct=4"),
        (3, -1, 1, "num_correct=-1"),
        (3, 1, 4, "k=4"),
        (3, 1, 0, "k=0"),
    ],
)
def test_impossible_counts_are_named(n, c, k, named):
    with pytest.raises(ValueError, match=named):
        pass_at_k(n, c, k)
