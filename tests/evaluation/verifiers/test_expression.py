"""The parser: what it reads, how operators bind, and what it refuses."""

from fractions import Fraction

import pytest

from dcft_jax.evaluation.verifiers.algebra import evaluate
from dcft_jax.evaluation.verifiers.expression import (
    MAX_DEPTH,
    MAX_LENGTH,
    UnreadableError,
    parse,
)

VALUES = [
    ("1+2*3", 7),
    ("(1+2)*3", 9),
    ("2-3-4", -5),
    ("24/4/2", 3),
    ("24/4*2", 12),
    ("-2^2", -4),
    ("(-2)^2", 4),
    ("2^3^2", 512),
    ("2^-1", Fraction(1, 2)),
    ("2^{1+2}", 8),
    ("2*-3", -6),
    ("2+-3", -1),
    ("2--3", 5),
    ("6/-3", -2),
    ("- 3 + 4", 1),
    ("3!+1", 7),
    ("2^3!", 64),
    ("|2-5|*2", 6),
    ("2(3)(4)", 24),
    ("(2)(3)", 6),
    (".5", Fraction(1, 2)),
    ("5.", 5),
    ("12.50", Fraction(25, 2)),
    ("1.5e3", 1500),
    ("2E-2", Fraction(1, 50)),
    (r"\frac{1}{2}", Fraction(1, 2)),
    (r"\frac12", Fraction(1, 2)),
    (r"\frac1{12}", Fraction(1, 12)),
    (r"\frac 12", Fraction(1, 2)),
    (r"2\frac{1}{2}", Fraction(5, 2)),
    (r"2\frac{3}{2}", 3),  # no mixed number: a product
    ("2 1/2", Fraction(5, 2)),
    (r"\sqrt{16}", 4),
    (r"\sqrt9", 3),
    (r"\sqrt 16", 4),
    (r"\sqrt[3]{27}", 3),
    (r"\sqrt[3]{-27}", -3),
    (r"0.\overline{3}", Fraction(1, 3)),
    (r"1.2\overline{45}", Fraction(1233, 990)),
    ("8^{2/3}", 4),
    ("(1/4)^{-1/2}", 2),
]


@pytest.mark.parametrize("text, value", VALUES)
def test_values(text, value):
    assert evaluate(parse(text)).at_points == (Fraction(value),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "+",
        "1+",
        "*2",
        "1 2",
        "1,2",
        "2 3/2",  # improper: two numbers
        "x2",
        "(x+1)2",
        "(1",
        "1)",
        "{1",
        "|1",
        "2^",
        "3!!",
        "--2",
        "1011_2",
        "1.2.3",
        "sin x",
        "log(2)",
        "apples",
        "f'",
        "x=1",
        r"\frac{1}",
        r"\frac123",
        r"\sqrt",
        r"\sqrt[3{2}",
        r"\sin x",
        r"\unknown",
        "1e99999",
        "٣",  # a digit, but not of ASCII
        "木",
    ],
)
def test_refused(text):
    with pytest.raises(UnreadableError):
        parse(text)


@pytest.mark.parametrize(
    "opening, closing", [("(", ")"), ("{", "}"), (r"\sqrt{", "}"), ("2^{", "}")]
)
def test_nesting_is_bounded(opening, closing):
    def nested(depth):
        return opening * depth + "1" + closing * depth

    parse(nested(MAX_DEPTH // 2))
    with pytest.raises(UnreadableError, match="deep"):
        parse(nested(MAX_DEPTH + 1))


def test_length_is_bounded():
    parse("+".join("1" * (MAX_LENGTH // 2)))
    with pytest.raises(UnreadableError, match="longer"):
        parse("1" * (MAX_LENGTH + 1))


def test_the_deepest_tree_fits_python_s_stack():
    divided = "(" + "1/" * 7
    text = divided * (MAX_DEPTH - 1) + "1" + ")" * (MAX_DEPTH - 1)
    assert len(text) <= MAX_LENGTH
    assert evaluate(parse(text)).at_points[0] is not None
