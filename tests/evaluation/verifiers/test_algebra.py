"""Evaluation: exact, bounded, and in agreement with floating point."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcft_jax.evaluation.verifiers.algebra import (
    MAX_BITS,
    evaluate,
    proportional,
    same_values,
)
from dcft_jax.evaluation.verifiers.expression import UnreadableError, parse


def values(text):
    return evaluate(parse(text))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 10**3), st.integers(1, 9))
def test_roots_are_exact_where_rational_and_close_elsewhere(top, bottom, degree):
    root = values(rf"\sqrt[{degree}]{{\frac{{{top}}}{{{bottom}}}}}").at_points[0]
    assert root is not None
    assert float(root) == pytest.approx((top / bottom) ** (1 / degree))
    power = values(rf"\sqrt[{degree}]{{\frac{{{top**degree}}}{{{bottom}}}}}")
    if bottom == 1:
        assert power.at_points == (Fraction(top),)


@settings(deadline=None)
@given(st.integers(1, 999), st.integers(1, 999))
def test_roots_multiply(a, b):
    product = values(rf"\sqrt{{{a}}}\sqrt{{{b}}}")
    assert same_values(product, values(rf"\sqrt{{{a * b}}}"))
    assert not same_values(product, values(rf"\sqrt{{{a * b + 1}}}"))


def test_sums_of_roots_that_floats_cannot_tell_apart():
    # They differ by 5e-13 in 10^12.
    first, second = r"\sqrt{10^{24}+1}", "10^{12}"
    assert math.sqrt(10**24 + 1) == 10**12
    assert not same_values(values(first), values(second))
    assert same_values(values(first), values(r"\frac{2\sqrt{10^{24}+1}}{2}"))


@pytest.mark.parametrize("text", ["1/0", "0^0", "0^{-1}", r"\sqrt{-2}", "(-2)!"])
def test_undefined_is_equal_to_nothing(text):
    assert values(text).at_points == (None,)
    assert not same_values(values(text), values(text))
    assert not same_values(values(text), values("0"))


def test_defined_at_other_points_is_different():
    assert not same_values(values(r"\sqrt{x}\sqrt{x}"), values("x"))  # at x < 0
    assert same_values(values(r"\frac{x}{x}"), values("1"))


@pytest.mark.parametrize(
    "text",
    ["9^9^9", "10^{10^{10}}", "2^{-10^9}", "501!", "2^x^9^9", "10^9000", "7^2917*7^9"],
)
def test_too_large_is_refused_before_it_is_computed(text):
    with pytest.raises(UnreadableError):
        values(text)


def test_powers_of_one_are_not_too_large():
    assert values("(-1)^{10^{30}+1}").at_points == (Fraction(-1),)


def test_large_numbers_within_the_bound_are_exact():
    bits = MAX_BITS - 1
    assert values(f"2^{{{bits}}}").at_points == (Fraction(2**bits),)
    assert not same_values(values(f"2^{{{bits}}}"), values(f"2^{{{bits}}}+1"))


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9))
def test_equations_are_proportional_to_their_multiples(a, b, c, scale):
    left = values(f"{a}*x+{b}*y+{c}")
    scaled = values(f"{scale * a}*x+{scale * b}*y+{scale * c}")
    assert proportional(left, scaled) == bool(a or b or c)
    assert not proportional(left, values(f"{a}*x+{b}*y+{c}+x^2"))


def test_points_do_not_depend_on_the_expression_or_the_process():
    x = values("x").at_points
    assert x[0] == Fraction(102_848, 99_991)
    assert values("x+0*y").at_points == x
    signs = {(a > 0, b > 0) for a, b in zip(x, values("y").at_points, strict=True)}
    assert (True, True) in signs and len(signs) > 1
