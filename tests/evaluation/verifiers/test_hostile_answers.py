"""No text makes the comparison of answers fail, or cost much."""
# ruff: noqa: RUF001 (look-alike characters are what this is about)

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcft_jax.evaluation.verifiers import same_answer

ALPHABET = "0123456789+-*/^=!.,;:()[]{}|_<> xyein%$\"'\n\\≤∪±π∞⦃⦄²½√一"
PIECES = [*ALPHABET, r"\frac", r"\sqrt", r"\text{", r"\{", r"\}", r"\left(", r"\boxed{"]


@settings(deadline=None, max_examples=400)
@given(
    st.lists(st.sampled_from(PIECES), max_size=60).map("".join) | st.text(max_size=80),
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
)
def test_no_text_makes_it_fail_and_order_does_not_matter(a, b):
    assert same_answer(a, b) == same_answer(b, a)


HOSTILE = [
    "9**9**9",
    "9^9^9^9^9",
    "10^(10^10)",
    "(10^(10^10))^(1/10^10)",
    "2^" * 200 + "2",
    "(" * 450 + "1" + ")" * 450,
    "{" * 900,
    "|" * 900,
    "-" * 900,
    "!" * 900,
    "9" * 900,
    "9" * 400 + "!",
    "1e999999",
    "0." + "1" * 400 + r"\overline{" + "7" * 400 + "}",
    "500!",
    "*".join(["500!"] * 80),
    "*".join(["(7^2900)"] * 50),
    "+".join(f"1/{n}" for n in range(900, 990)),
    "/".join(["7"] * 240),
    "((((x+y)^9+1)^9+1)^9+1)^9",
    "+".join(["x^300"] * 70),
    "*".join(rf"\sqrt{{{n}+x}}" for n in range(2, 40)),
    r"\sqrt[64]{" * 30 + "2" + "}" * 30,
    "(2+sqrt(3))^8000",
    "1.0000001^(x^9)",
    "{" + ",".join(f"{n}x" for n in range(100)) + "}",
    ",".join(["1"] * 500),
    "(" + "(1,2)," * 120 + "0)",
    "[" * 30 + "1,2" + "]" * 30,
    "±" * 300 + "1",
    "1±" * 40 + "1",
    "=" * 900,
    "x=" * 300 + "1",
    r"\frac" * 190,
    r"\text{" * 160,
    '"' * 900,
    "1" + " apples" * 140,
    "1 " * 480,
    "1," * 480,
    " " * 950,
    "\\" * 950,
    r"\begin{pmatrix}" * 60,
    r"\begin{pmatrix}" + "1&" * 400 + r"\end{pmatrix}",
    "\ufdfa" * 900,  # one character that becomes eighteen
    "x" * 900,
    "a_" * 450,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:16].strip())
def test_hostile_texts_cost_little(text):
    # The bound is two orders of magnitude above what is measured, and many below
    # what evaluating 9**9**9 would take.
    start = time.process_time()
    assert not same_answer(text, "42")
    assert not same_answer(text + "1", "42" + text)
    assert time.process_time() - start < 2.0
