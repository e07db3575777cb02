"""Which final answers are the same: a table, and properties."""
# ruff: noqa: RUF001 (look-alike characters are what this is about)

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcft_jax.evaluation.verifiers import same_answer

SAME = [
    # numbers
    ("7", "7.0"),
    ("7", "+7"),
    ("007", "7"),
    (".5", "0.5"),
    ("5.", "5"),
    ("-3", "\u22123"),  # the minus sign of Unicode
    ("-3", "\u20133"),
    ("12", "１２"),
    ("0.1+0.2", "0.3"),
    ("1,000", "1000"),
    ("1,234,567.5", "1234567.5"),
    ("1{,}000", "1000"),
    (r"10,\!000", "10000"),
    (r"11,\! 111,\! 111", "11111111"),
    (r"1\,000\,000", "1000000"),
    ("1.5e3", "1500"),
    (r"1.5 \times 10^3", "1500"),
    (r"2^{10}", "1024"),
    ("2**10", "1024"),
    ("2^-1", "1/2"),
    ("5!", "120"),
    # fractions
    ("1/2", "0.5"),
    ("1/2", "2/4"),
    (r"\frac12", "1/2"),
    (r"\frac{1}{2}", "½"),
    (r"\frac 12", "0.5"),
    (r"\dfrac{3}{4}", r"\tfrac34"),
    (r"-\frac{3}{4}", r"\frac{-3}{4}"),
    (r"\frac{3}{-4}", "-0.75"),
    (r"\frac1{72}", "1/72"),
    (r"2\frac{1}{2}", "5/2"),
    ("2 1/2", "2.5"),
    ("2½", "2.5"),
    (r"-2\frac12", "-2.5"),
    (r"0.\overline{3}", "1/3"),
    (r"0.1\overline{6}", "1/6"),
    (r"\frac{\frac12}{3}", "1/6"),
    # units, currency, percent
    (r"50\%", "50"),
    ("50%", r"50\%"),
    ("50 percent", "50%"),
    (r"\$5", "5"),
    ("$5", "5 dollars"),
    (r"\$1,200.50", "1200.5"),
    (r"-\$5", "-5"),
    ("€5", "5 euros"),
    (r"5\text{ cm}", "5"),
    (r"5\text{ cm}", "5 centimeters"),
    (r"5\text{ cm}^2", "5 square centimeters"),
    (r"5\mathrm{m}", "5 meters"),
    (r"90^\circ", "90"),
    (r"90^{\circ}", "90°"),
    ("90 degrees", "90°"),
    (r"3\sqrt{2}\text{ ft}", r"3\sqrt2"),
    ("12 apples", "12"),
    ("60 km/h", "60"),
    ("18/day", "18"),
    ("3.5 hours per week", "3.5"),
    # dressing
    ("$7$", "7"),
    (r"\( 7 \)", r"\[7\]"),
    ("**7**", "7"),
    (" 7. ", "7"),
    (r"\text{7}", "7"),
    (r"\boxed{7}", "{7}"),
    (r"\displaystyle 7", "7"),
    ("x=7", "7"),
    ("x = 7", "x=7.0"),
    (r"x = \frac{1}{2}", "0.5"),
    ("9+9=18", "18"),
    ("x = 2+3 = 5", "5"),
    ('"$5"', "5"),
    (r"\theta = \pi", "π"),
    # roots and constants
    (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"\sqrt2", "√2"),
    ("sqrt(12)", r"2\sqrt3"),
    ("√12", r"2\sqrt3"),
    (r"\frac{1}{\sqrt2}", r"\frac{\sqrt2}{2}"),
    (r"\frac{1}{1+\sqrt{2}}", r"\sqrt2-1"),
    (r"\sqrt{4+2\sqrt3}", r"1+\sqrt3"),
    (r"\sqrt[3]{54}", r"3\sqrt[3]{2}"),
    ("2^{1/2}", r"\sqrt2"),
    (r"\sqrt{\frac{9}{4}}", "3/2"),
    (r"\frac{\pi}{2}", "0.5π"),
    (r"2\pi", r"\pi\cdot2"),
    ("|-3|", "3"),
    (r"|3-\pi|", r"\pi-3"),
    # algebra
    ("2x+1", "1+2x"),
    ("x²+2x+1", "(x+1)^2"),
    ("x*y", r"y \cdot x"),
    ("xy", "y*x"),
    (r"\frac{x^2-1}{x-1}", "x+1"),
    (r"\frac{x}{2}", "x/2"),
    ("-(x-1)", "1-x"),
    (r"x^{-1}", r"\frac1x"),
    ("a_1+a_2", "a_{2}+a_{1}"),
    (r"2\cdot x\times 3", "6x"),
    (r"\left(x+1\right)\left(x-1\right)", "x^2-1"),
    ("(2x)^3", "8x^3"),
    (r"\alpha+\beta", r"\beta+\alpha"),
    ("3+4i", "4i+3"),
    ("2^n*2", "2^{n+1}"),
    # collections
    ("(1,2)", r"\left( 1, 2 \right)"),
    (r"(\frac12, 3)", "(0.5,3)"),
    ("[0,1)", r"\left[0, 1\right)"),
    (r"(-\infty, 2]", "(-∞,2]"),
    (r"\{1,2,3\}", r"\{3, 2, 1\}"),
    (r"\{1,2\}", "1, 2"),
    ("{1,2}", "2,1"),
    ("1,2,3", "3, 1, 2"),
    ("1, 2, and 3", "1,2,3"),
    ("3 or 4", "4, 3"),
    (r"19 \text{ and } 43", "43, 19"),
    ("x=1, x=2", "2,1"),
    (r"1 \pm \sqrt2", r"1-\sqrt2, 1+\sqrt2"),
    (r"\pm 2", "-2, 2"),
    (r"(-\infty,0)\cup(1,2)", r"(1,2) \cup (-\infty,0)"),
    (r"x \in [0,1]", "[0,1]"),
    ("((1,2),(3,4))", "((1,2), (3,4.0))"),
    (r"\emptyset", r"\{\}"),
    (
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        r"\begin{pmatrix}1&\frac{4}{2}\\3&4\end{pmatrix}",
    ),
    # relations
    ("y=2x+1", "y = 1+2x"),
    ("y=2x+1", "2x+1"),
    ("y=2x+1", "2x-y+1=0"),
    ("2x+4y=6", "x+2y=3"),
    ("x<3", "3>x"),
    (r"0 \le x < 1", "1 > x >= 0"),
    # words, and what is only compared as it is written
    (r"\text{even}", "Even"),
    (r"\text{(A)}", "A"),
    ("(C)", "C"),
    ("yes", "Yes."),
    (r"\sin x", r"\sin  x"),
    ("1011_2", "1011_{2}"),
    ("9**9**9", "9^9^9"),
    ("4:30 p.m.", r"\text{4:30 p.m.}"),
]

DIFFERENT = [
    ("7", "8"),
    ("7", "-7"),
    ("1/3", "0.333"),
    (r"\pi", "3.14"),
    ("0.1+0.2", "0.30000000000000004"),
    (r"\sqrt2", "1.41421356237"),
    ("10^30", "10^30+1"),
    ("1,000", "1"),
    ("3,4", "34"),
    ("3,4", "3.4"),
    ("3,4", "(3,4)"),
    ("(3,4)", "(4,3)"),
    ("(100,200)", "100200"),
    ("1 000", "1000"),
    ("1 2", "12"),
    ("1 2", "2"),
    ("1 2 3", "6"),
    ("12", "1,2"),
    (r"50\%", "0.5"),
    ("0.5%", "0.5 cm"),
    ("5 cm", "5 m"),
    ("5 hours", "5 minutes"),
    (r"5\text{ cm}", r"5\text{ cm}^2"),
    (r"\$5", "5 euros"),
    ("5 million", "5"),
    ("5 dozen", "5"),
    ("5 and a half", "5"),
    ("5 over 2", "5"),
    ("5 squared", "5"),
    ("5 or 6", "5"),
    ("5 apples and 3 pears", "5"),
    ("not 5", "5"),
    (r"\frac12", "12"),
    (r"\frac{1}{2}", "2"),
    (r"3\frac{1}{2}", "3/2"),
    ("x/2y", "x/(2y)"),
    ("2x+1", "2x-1"),
    ("2x+1", "2y+1"),
    ("x", "X"),
    ("x=5", "y=5"),
    (r"\sqrt{x^2}", "x"),
    ("|x|", "x"),
    ("x^2", "x2"),
    ("x^{12}", "x^{1}2"),
    ("1/0", "2/0"),
    (r"\sqrt{-1}", r"\sqrt{-2}"),
    ("0", "1/0"),
    ("[0,1)", "[0,1]"),
    ("[0,1)", "(0,1]"),
    (r"\{1,2\}", "(1,2)"),
    (r"\{1,2\}", r"\{1,2,3\}"),
    (r"\{1,1,2\}", r"\{1,2,2\}"),
    (r"\{1,2\}", "[1,2]"),
    ("1,2,3", "1,2"),
    ("x<3", "x>3"),
    ("x<3", r"x \le 3"),
    ("x+y=1", "x-y=1"),
    ("x+y=1", "1"),
    ("9+9=17", "17"),
    ("9+9=18=17", "17"),
    (r"(0,1)\cup(2,3)", "(0,3)"),
    (r"\pm 2", "2"),
    ("(1,2)", r"\begin{pmatrix} 1 & 2 \end{pmatrix}"),
    (
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}",
    ),
    (r"\text{even}", r"\text{odd}"),
    ("cab", "abc"),
    ("therapist", "the rapist"),
    ("A", "(B)"),
    (r"\sin x", r"\cos x"),
    ("1011_2", "1011"),
    ("1011_2", "1011_3"),
    ("9**9**9", "9**9**8"),
    ("10^(10^10)", "10^(10^11)"),
    ("3!!", "720"),
    ("", ""),
    ("", "0"),
    (".", "."),
    (" ".join(map(str, range(1, 101))), "42"),
    (", ".join(map(str, range(1, 101))), "42"),
    ("0 1 2 3 4 5 6 7 8 9", "5"),
    ("5 5", "5"),
    ("__import__('os').getcwd()", "5"),
    ("1" * 1001, "1" * 1000),
]


def test_the_table_is_a_table():
    assert len(SAME) + len(DIFFERENT) >= 120
    assert len(set(SAME)) == len(SAME) and len(set(DIFFERENT)) == len(DIFFERENT)


@pytest.mark.parametrize("a, b", SAME)
def test_same(a, b):
    assert same_answer(a, b)
    assert same_answer(b, a)


@pytest.mark.parametrize("a, b", DIFFERENT)
def test_different(a, b):
    assert not same_answer(a, b)
    assert not same_answer(b, a)


# An expression is a nested tuple; two printers write it, and Python evaluates it.
LEAVES = st.integers(0, 20) | st.sampled_from(["x", "y"])
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.tuples(st.sampled_from("+-*/"), inner, inner),
    max_leaves=8,
)


def as_plain(e) -> str:
    return f"({as_plain(e[1])}{e[0]}{as_plain(e[2])})" if is_operation(e) else str(e)


def as_latex(e) -> str:
    """In another notation, and with sums and products the other way around."""
    if not is_operation(e):
        return str(e)
    operation, a, b = e[0], as_latex(e[1]), as_latex(e[2])
    if operation == "/":
        return rf"\frac{{{a}}}{{{b}}}"
    if operation == "-":
        return rf"\left(-{b} + {a}\right)"
    sign = r" \cdot " if operation == "*" else " + "
    return rf"\left({b}{sign}{a}\right)"


def is_operation(e) -> bool:
    return isinstance(e, tuple)


def at(e, values: dict[str, Fraction]) -> Fraction | None:
    if not is_operation(e):
        return values[e] if isinstance(e, str) else Fraction(e)
    a, b = at(e[1], values), at(e[2], values)
    if a is None or b is None or (e[0] == "/" and b == 0):
        return None
    return {"+": a + b, "-": a - b, "*": a * b}[e[0]] if e[0] != "/" else a / b


POINTS = [
    {"x": Fraction(7, 3), "y": Fraction(-5, 11)},
    {"x": Fraction(13), "y": Fraction(9, 2)},
]


@settings(deadline=None)
@given(EXPRESSIONS)
def test_an_expression_equals_itself_in_another_notation(e):
    assert same_answer(as_plain(e), as_plain(e))
    if all(at(e, point) is not None for point in POINTS):
        assert same_answer(as_plain(e), as_latex(e))


@settings(deadline=None)
@given(EXPRESSIONS, EXPRESSIONS)
def test_symmetric_and_never_same_where_values_differ(e, f):
    forward = same_answer(as_plain(e), as_latex(f))
    assert forward == same_answer(as_latex(f), as_plain(e))
    if any(at(e, p) != at(f, p) for p in POINTS):
        assert not forward or as_plain(e) == as_latex(f)


@settings(deadline=None)
@given(EXPRESSIONS)
def test_one_more_is_something_else(e):
    assert not same_answer(as_plain(e), f"{as_plain(e)}+1")


@given(st.fractions(), st.fractions())
def test_fractions_are_exact(a, b):
    def write(f):
        return rf"\frac{{{f.numerator}}}{{{f.denominator}}}"

    assert same_answer(write(a), f"{a.numerator}/{a.denominator}")
    assert same_answer(write(a), write(b)) == (a == b)


@given(st.integers(-(10**15), 10**15))
def test_thousands_separators(n):
    assert same_answer(f"{n:,}", str(n))
    assert same_answer(rf"\${n:,}.00", str(n))


@settings(deadline=None)
@given(st.lists(st.integers(-99, 99), min_size=2, max_size=12), st.randoms())
def test_sets_have_no_order_and_tuples_do(items, rng):
    moved = items[:]
    rng.shuffle(moved)
    a, b = (", ".join(map(str, x)) for x in (items, moved))
    assert same_answer(rf"\{{{a}\}}", rf"\{{{b}\}}")
    assert same_answer(a, rf"\{{{b}\}}")
    assert same_answer(f"({a})", f"({b})") == (items == moved)


def test_matching_of_collections_is_not_fooled_by_order():
    rng = random.Random(0)
    items = [rf"\frac{{{n}x}}{{7}}" for n in range(60)]
    moved = items[:]
    rng.shuffle(moved)
    assert same_answer(", ".join(items), ", ".join(moved))
    moved[3] = moved[4]
    assert not same_answer(", ".join(items), ", ".join(moved))
