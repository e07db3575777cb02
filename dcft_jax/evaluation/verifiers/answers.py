"""Whether a reply's final answer is the same mathematics as the gold answer."""

from dcft_jax.evaluation.verifiers.algebra import proportional, same_values
from dcft_jax.evaluation.verifiers.final_answer import extract_answer
from dcft_jax.evaluation.verifiers.notation import plain
from dcft_jax.evaluation.verifiers.structure import (
    Answer,
    Collection,
    Equation,
    Inequality,
    Quantity,
    Words,
    is_finished,
    read,
)
from dcft_jax.evaluation.verifiers.units import agree
from dcft_jax.evaluation.verifiers.verdict import Verdict

MAX_ANSWER = 1000  # characters; longer answers are the same only as texts


def same_answer(a: str, b: str) -> bool:
    r"""Whether two final answers are the same; symmetric, and exact.

    Numbers are compared as rationals (`1/2` = `0.5` = `\frac12`, and 0.33 is not 1/3),
    expressions by their values. Sets and bare lists have no order, tuples and
    intervals do and differ from them; `(0,1)` may be either. `x = 5` is 5. A unit may
    be left out, but not be another one; a percent sign is a unit: `50\%` = 50, which
    is not 0.5. Outside of brackets `1,000` is a thousand and `3,4` a list. A single
    letter is a variable whose case counts (also i and e, up to e > 0); a word is
    compared as text without case.

    What cannot be read as mathematics (functions such as sin, bases, numbers beyond
    `algebra.MAX_BITS`) is the same only if written the same, up to `notation`. Nothing
    is executed, and time is bounded whatever the text.
    """
    if max(len(a), len(b)) > MAX_ANSWER:
        return a == b
    plain_a, plain_b = plain(a), plain(b)
    if plain_a == plain_b:
        return plain_a != ""
    return _same(read(plain_a), read(plain_b))


def verify_answer(reply: str, gold: str) -> Verdict:
    r"""Judges the final answer of a reply.

    Where the gold answer is a literal number, so must be that of the reply: with
    lowest terms and nothing left to compute. Otherwise repeating "92/524" would
    simplify it, and repeating "4+3" would add. Expressions with variables or roots
    are compared by value alone: whether they are expanded or simplified is not seen.

    Args:
      reply: what the model wrote; see `extract_answer` for what is taken from it.
      gold: a bare answer, or a solution that holds a `\boxed{...}` or `#### n`.

    Raises:
      ValueError: the gold holds no answer.
    """
    whole = "\\boxed" in gold or "####" in gold
    expected = extract_answer(gold) if whole else gold.strip()
    if not expected:
        raise ValueError(
            rf"gold={gold[:80]!r} holds no answer; give the bare answer, or a solution "
            r"with \boxed{...} or a last line of #### and the answer"
        )
    extracted = extract_answer(reply)
    if extracted is None:
        return Verdict(False, None, "no final answer")
    if not same_answer(extracted, expected):
        return Verdict(False, extracted, "different answer")
    if _is_result(expected) and not _is_result(extracted):
        return Verdict(False, extracted, "not computed to the end")
    return Verdict(True, extracted, "same answer")


def _is_result(answer: str) -> bool:
    return len(answer) <= MAX_ANSWER and is_finished(read(plain(answer)))


def _same(a: Answer, b: Answer) -> bool:
    if isinstance(a, Equation) or isinstance(b, Equation):
        return _same_equation(a, b)
    if isinstance(a, Quantity) and isinstance(b, Quantity):
        return agree(a.unit, b.unit) and same_values(a.values, b.values)
    if isinstance(a, Collection) and isinstance(b, Collection):
        if a.kind != b.kind or len(a.items) != len(b.items):
            return False
        if a.kind in ("{}", "union"):
            return _same_items(list(a.items), list(b.items))
        return all(map(_same, a.items, b.items))
    if isinstance(a, Inequality) and isinstance(b, Inequality):
        return a.relations == b.relations and all(map(_same, a.sides, b.sides))
    if isinstance(a, Words) and isinstance(b, Words):
        return a.key == b.key != ""
    if isinstance(a, Words) and isinstance(b, Quantity):
        a, b = b, a
    if isinstance(a, Quantity) and isinstance(b, Words) and b.product is not None:
        return same_values(a.values, b.product)  # "xy" and "x*y"
    return False


def _same_equation(a: Answer, b: Answer) -> bool:
    if not isinstance(a, Equation):
        a, b = b, a
    assert isinstance(a, Equation)
    if not isinstance(b, Equation):
        return a.side is not None and _same(a.side, b)
    if a.name and a.name == b.name and a.side and b.side and _same(a.side, b.side):
        return True
    if a.difference is None or b.difference is None:
        return False
    return proportional(a.difference, b.difference)


def _same_items(a: list[Answer], b: list[Answer]) -> bool:
    """One to one, in any order."""
    for item in a:
        match = next((i for i, other in enumerate(b) if _same(item, other)), None)
        if match is None:
            return False
        del b[match]
    return not b
