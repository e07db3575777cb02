r"""Which answer a reply states, and what becomes of it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcft_jax.evaluation.verifiers import Verdict, extract_answer, verify_answer

EXTRACTED = [
    (r"So we get \boxed{42}.", "42"),
    (r"\boxed{1} is wrong, so \boxed{2}", "2"),
    (r"\boxed{\frac{1}{\sqrt{2}}} holds", r"\frac{1}{\sqrt{2}}"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{\text{if } x = \}}", r"\text{if } x = \}"),
    (r"$\boxed 5$ it is", "5"),
    (r"\fbox{7}", "7"),
    (r"\boxed{3} and the answer is 4", "3"),
    (r"\boxed{1} and \boxed{2", None),  # cut: nothing was decided
    (r"\boxed{}", None),
    (r"\boxed", None),
    ("She has 3 + 4 = <<3+4=7>>7 eggs.\n#### 7", "7"),
    ("#### 7\n#### 8 \nbye", "8"),
    ("#### 1,200", "1,200"),
    ("####", None),
    ("The answer is 12.", "12"),
    ("the ANSWER IS: **12**", "12"),
    ("Answer:\n3/4\nGood luck!", "3/4"),
    ("The answer is 1.5. I checked 7 times.", "1.5"),
    ("First the answer is 3. No, the answer is 4.", "4"),
    ("The answer is 12 because 3 * 4 = 12", "12"),
    (r"The answer is $\frac{1}{2}$, which is 0.5.", r"$\frac{1}{2}$"),
    ("The answer is 3 or 4 or 5.", "3 or 4 or 5"),
    ("He pays 3 dollars, she pays $4.50.", "$4.50"),
    ("It costs 1,234.", "1,234"),
    ("12 + 3 = 15", "15"),
    ("so x = -3", "-3"),
    ("5-3", "3"),
    ("7 - 3", "3"),
    ("1/2 of it", "1/2"),
    ("about 50%", "50%"),
    ("1 2 3 4", "1 2 3 4"),
    ("1, 2, 3 ... 100", "1, 2, 3 ... 100"),
    ("1\n2\n3", "1\n2\n3"),
    ("it is 3 or 4", "3 or 4"),
    ("no idea", None),
    ("", None),
]


@pytest.mark.parametrize("reply, answer", EXTRACTED)
def test_extraction(reply, answer):
    assert extract_answer(reply) == answer


@given(st.text(st.characters(exclude_characters="{}\\`*_ \t\r\n"), min_size=1))
def test_a_box_gives_back_what_is_in_it(content):
    content = content.strip()
    if content:
        assert extract_answer(rf"1 2 \boxed{{{{{content}}}}} 3") == f"{{{content}}}"


@given(st.text())
def test_any_text_has_one_answer_or_none(reply):
    answer = extract_answer(reply)
    assert answer is None or (answer and answer == answer.strip())


JUDGED = [
    (r"\boxed{42}", "42", True, "same answer"),
    (r"\boxed{42}", r"So it is $\boxed{42}$.", True, "same answer"),
    ("The answer is 18.", "9 * 2 = 18\n#### 18", True, "same answer"),
    ("18 dollars", "#### 18", True, "same answer"),
    ("She makes $18 every day.", "#### 18", True, "same answer"),
    (r"\boxed{0.50}", r"\frac12", True, "same answer"),
    (r"\boxed{x=5}", "5", True, "same answer"),
    (r"\boxed{42}", "43", False, "different answer"),
    ("I do not know", "43", False, "no final answer"),
    ("", "43", False, "no final answer"),
    # two answers: the last one counts
    (r"\boxed{42} or \boxed{43}", "42", False, "different answer"),
    (r"\boxed{43}, no, \boxed{42}", "42", True, "same answer"),
    # an answer that is everything is nothing
    (" ".join(map(str, range(101))), "100", False, "different answer"),
    (", ".join(map(str, range(101))), "100", False, "different answer"),
    (rf"\boxed{{{', '.join(map(str, range(101)))}}}", "42", False, "different answer"),
    (r"\boxed{1 \text{ or } 2}", "2", False, "different answer"),
    # repeating the question is not answering it
    (r"\boxed{4+3}", "7", False, "not computed to the end"),
    (r"\boxed{12 \cdot 17}", "204", False, "not computed to the end"),
    ("The answer is 92/524.", "23/131", False, "not computed to the end"),
    (r"\boxed{84/2}", "42", False, "not computed to the end"),
    (r"\boxed{\sqrt{16}}", "4", False, "not computed to the end"),
    (r"\boxed{2^{10}}", "1024", False, "not computed to the end"),
    (r"\boxed{(1+1, 3)}", "(2, 3)", False, "not computed to the end"),
    (r"\boxed{23/131}", "23/131", True, "same answer"),
    (r"\boxed{2\frac{1}{2}}", "2.5", True, "same answer"),
    (r"\boxed{1.2 \times 10^{-3}}", "0.0012", True, "same answer"),
    (r"\boxed{-\frac{1}{2}}", "-0.5", True, "same answer"),
    # a gold that is not a plain number may be written in any way
    (r"\boxed{\sqrt{12}}", r"2\sqrt{3}", True, "same answer"),
    (r"\boxed{1+2}", "1+2", True, "same answer"),
    (r"\boxed{\text{Even}}", r"\text{even}", True, "same answer"),
]


@pytest.mark.parametrize("reply, gold, correct, reason", JUDGED)
def test_judgement(reply, gold, correct, reason):
    assert verify_answer(reply, gold) == Verdict(correct, extract_answer(reply), reason)


@pytest.mark.parametrize("gold", ["", "  ", r"\boxed{}", "####", r"\boxed{4"])
def test_a_gold_without_answer_is_an_error(gold):
    with pytest.raises(ValueError, match="gold="):
        verify_answer("4", gold)


@pytest.mark.parametrize(
    "piece",
    [
        *("1 ", "1, ", "1/", "1.", "9", "1,111", "1 and ", "and ", "-", "$", ",", ". "),
        *(
            "answer ",
            "answer is ",
            "because ",
            "####",
            "{",
            "\\",
            r"\boxed",
            r"\boxed{",
        ),
    ],
)
def test_time_is_linear_in_the_reply(piece):
    reply = piece * (200_000 // len(piece))
    start = time.process_time()
    verify_answer(reply, "7")
    assert time.process_time() - start < 2.0
