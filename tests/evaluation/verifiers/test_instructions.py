"""Instruction checkers of IFEval: each kept and each broken, strict and loose."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcft_jax.evaluation.verifiers import (
    CHECKS,
    InstructionVerdict,
    check_instruction,
    verify_instructions,
)
from dcft_jax.evaluation.verifiers.sentences import count_sentences, count_words

AT_LEAST, LESS = "at least", "less than"

# (name, arguments, replies that follow, replies that do not)
CASES = [
    (
        "keywords:existence",
        {"keywords": ["cat", "C++"]},
        ["CATS like c++", "c++ category"],
        ["cats like C", "C++ dogs", "cat ccc"],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["cat", "C++"]},
        ["the category", "concatenate C", "C+ dogs"],
        ["a cat.", "A CAT", "in c++, so"],
    ),
    (
        "keywords:frequency",
        {"keyword": "na", "frequency": 2, "relation": AT_LEAST},
        ["banana", "Na na"],
        ["na", "nothing"],
    ),
    (
        "keywords:frequency",
        {"keyword": "a.b", "frequency": 1, "relation": LESS},
        ["axb"],
        ["a.b"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "E", "let_frequency": 3, "let_relation": AT_LEAST},
        ["eEe", "needle e"],
        ["ee", "x"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": LESS},
        ["two words", "one-two"],
        ["now three words", "don't stop"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": AT_LEAST},
        ["One. Two.", "Really? Yes", 'He said "no." She left.'],
        ["Only one.", "Dr. Smith paid 3.50 today.", "no end"],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["one\n***\ntwo", "*** one *** two ***"],
        ["one", "one *** *** two", "a *** b *** c", "one\n\ntwo"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Hello"},
        ["a b\n\nhello, you", 'a\n\n"Hello" b'],
        ["hello\n\na", "a\n\nhello\n\nb", "a\n\nhelloo", "hello"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "intro\n - a\n  - b\nend", "*a\n-b"],
        ["* a", "* a\n* b\n* c", "**bold**\n* a", "1. a\n2. b"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b*", "**a** then *b*"],
        ["*a*", "**a**", "* a\n* b", "** **"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb", "Section1 Section2"],
        ["Section 1", "Section one Section two", "section 1 section 2"],
    ),
    (
        "detectable_format:title",
        {},
        ["<<Joy>>\ntext", "a <<b c>> d"],
        ["<Joy>", "<<>>", "<<Joy\n>>", "<< >>", ">>a<<"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1, 2]}', '```json\n{"a": 1}\n```', "```\n[]\n```"],
        ["{'a': 1}", '{"a": 1} done', "text", "```json\n{\n```", "[" * 100_000],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "Well. My answer is maybe."],
        ["Yes.", "my answer is yes."],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye.\nP.S. more", "p. s. more"],
        ["PS more", "P.S more", "no"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["Bye. P.P.S more", "p.p.s. x"],
        ["P.S. more"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[name] of [address]", "[][]", "[a [b] [c]"],
        ["[name]", "[name\n] [b]", "]a[ ]b", "(a) (b)"],
    ),
    ("change_case:english_capital", {}, ["ALL 3 CAPS!"], ["Not all", "123", "aLL"]),
    ("change_case:english_lowercase", {}, ["all 3 low!"], ["Not all", "123"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": AT_LEAST},
        ["I AM here", "WELL-KNOWN COVID-19"],
        ["WELL-KNOWN", "DON'T do", "Only Two Names", "1 2 3"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 1, "capital_relation": LESS},
        ["none here"],
        ["ONE here"],
    ),
    ("punctuation:no_comma", {}, ["no; comma"], ["a, b", "1,000"]),
    ("startend:quotation", {}, ['"all of it"', ' "x" '], ['"', '"a" b', "'a'"]),
    (
        "startend:end_checker",
        {"end_phrase": "The end."},
        ["So. The end.", "so the END. \n", '"The end."'],
        ["The end. Really", "The end"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Say hi. "},
        ["Say hi. Hi!", " say HI.\nHi!"],
        ["Hi! Say hi.", "Say hello. hi"],
    ),
    (
        "combination:two_responses",
        {},
        ["one\n******\ntwo", "****** one ****** two ******"],
        ["one ****** one", "one", "a ****** ****** b", "a ****** b ****** c"],
    ),
]
FOLLOWED = [(name, kw, r) for name, kw, good, _ in CASES for r in good]
BROKEN = [(name, kw, r) for name, kw, _, bad in CASES for r in bad]


def test_every_check_is_seen_both_ways():
    assert {name for name, _, _ in FOLLOWED} == {n for n, _, _ in BROKEN} == set(CHECKS)


@pytest.mark.parametrize("name, kwargs, reply", FOLLOWED)
def test_followed(name, kwargs, reply):
    verdict = verify_instructions(reply, [(name, kwargs)])
    assert verdict == InstructionVerdict((True,), (True,))


@pytest.mark.parametrize("name, kwargs, reply", BROKEN)
def test_broken(name, kwargs, reply):
    assert verify_instructions(reply, [(name, kwargs)]).strict == (False,)


@pytest.mark.parametrize(
    "name, kwargs, reply",
    [
        ("startend:quotation", {}, 'Sure, here it is:\n"All of it."'),
        ("startend:quotation", {}, '"All of it."\nI hope this helps!'),
        ("startend:quotation", {}, 'Sure:\n"All of it."\nBye!'),
        ("startend:quotation", {}, '**"All of it."**'),
        ("detectable_format:json_format", {}, "Here:\n**[1, 2]**\nDone."),
        ("startend:end_checker", {"end_phrase": "Bye."}, "So. **Bye.**"),
        ("punctuation:no_comma", {}, "Well, yes:\nno comma"),
    ],
)
def test_loose_forgives_introductions_closings_and_emphasis(name, kwargs, reply):
    verdict = verify_instructions(reply, [(name, kwargs)])
    assert verdict == InstructionVerdict((False,), (True,))


def test_loose_forgives_nothing_else():
    reply = 'One line.\nTwo.\n"Quoted"\nThree.\nFour.'
    verdict = verify_instructions(reply, [("startend:quotation", {})])
    assert verdict.loose == (False,)


def test_follow_all_needs_each():
    instructions = [
        ("punctuation:no_comma", {}),
        ("change_case:english_lowercase", {}),
        ("length_constraints:number_words", {"num_words": 2, "relation": AT_LEAST}),
    ]
    both = verify_instructions("all fine here", instructions)
    assert both.strict == (True, True, True) and both.follow_all
    some = verify_instructions("Oh, well\nall fine here", instructions)
    assert some.strict == (False, False, True) and not some.follow_all
    assert some.loose == (True, True, True) and some.follow_all_loosely


@pytest.mark.parametrize("reply", ["", " \n\t"])
@pytest.mark.parametrize("name, kwargs", [(c[0], c[1]) for c in CASES])
def test_an_empty_reply_follows_nothing(reply, name, kwargs):
    verdict = verify_instructions(reply, [(name, kwargs)])
    assert verdict == InstructionVerdict((False,), (False,))


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["a", "A", "*", "***", "\n", " ", "[", "]", '"', ".", ",", "<<"]
        )
        | st.text(max_size=4),
        max_size=25,
    ).map("".join)
)
def test_what_is_followed_strictly_is_followed_loosely(reply):
    verdict = verify_instructions(reply, [(name, kw) for name, kw, _, _ in CASES])
    for strict, loose in zip(verdict.strict, verdict.loose, strict=True):
        assert loose or not strict


@given(st.integers(0, 30), st.text(alphabet="ab c", max_size=40))
def test_less_than_and_at_least_are_opposites(num, reply):
    reply += "x"  # not empty
    for name, count, relation in (
        ("length_constraints:number_words", "num_words", "relation"),
        ("length_constraints:number_sentences", "num_sentences", "relation"),
        ("change_case:capital_word_frequency", "capital_frequency", "capital_relation"),
    ):
        pair = [(name, {count: num, relation: r}) for r in (LESS, AT_LEAST)]
        assert sum(verify_instructions(reply, pair).strict) == 1


@pytest.mark.parametrize(
    "text, words, sentences",
    [
        ("", 0, 0),
        ("...", 0, 0),
        ("Hello", 1, 1),
        ("Hello. World", 2, 2),
        ("Hello there! How are you? Fine.", 6, 3),
        ("Wait... what?! No.", 3, 2),
        ("Mr. Smith met Dr. Who at 5 p.m. today.", 10, 1),
        ("J. R. R. Tolkien wrote it. So did I. Really.", 10, 3),
        ("Pi is 3.14 or so. See www.example.com for more.", 12, 2),
        ('"Stop!" he cried. "Why?" She ran.', 6, 3),
        ("First line\nsecond line\n\nthird", 5, 1),
        ("We use e.g. apples, pears etc. in it.", 9, 1),
    ],
)
def test_counting(text, words, sentences):
    assert (count_words(text), count_sentences(text)) == (words, sentences)


def test_arguments_that_are_none_are_absent():
    # IFEval's table has a column per argument, empty where it is not used.
    kwargs = {"num_words": 1, "relation": AT_LEAST, "keywords": None, "letter": None}
    assert check_instruction("length_constraints:number_words", kwargs) == {
        "num_words": 1,
        "relation": AT_LEAST,
    }


@pytest.mark.parametrize(
    "name, kwargs, named",
    [
        ("keywords:exist", {}, r"unknown instruction 'keywords:exist'; .*existence"),
        ("punctuation:no_comma", {"n": 1}, "takes no arguments, not n"),
        ("keywords:existence", {}, "takes keywords, not none"),
        ("keywords:existence", {"keywords": "cat"}, "keywords='cat' must be a list"),
        ("keywords:existence", {"keywords": []}, "keywords=.* must be a list"),
        ("keywords:forbidden_words", {"forbidden_words": [""]}, "must be a list"),
        (
            "length_constraints:number_words",
            {"num_words": 3, "relation": "at most"},
            "relation='at most' must be one of less than, at least",
        ),
        (
            "length_constraints:number_words",
            {"num_words": "3", "relation": LESS},
            "num_words='3' must be a whole number",
        ),
        ("length_constraints:number_paragraphs", {"num_paragraphs": -1}, "=-1 must"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": True}, "=True"),
        (
            "keywords:letter_frequency",
            {"letter": "ab", "let_frequency": 1, "let_relation": LESS},
            "letter='ab' must be one character",
        ),
        ("startend:end_checker", {"end_phrase": " "}, "end_phrase=' ' must be a text"),
    ],
)
def test_malformed_instructions_are_named(name, kwargs, named):
    with pytest.raises(ValueError, match=named):
        verify_instructions("anything", [(name, kwargs)])


def test_no_instruction_is_an_error_and_not_a_success():
    with pytest.raises(ValueError, match="instructions is empty"):
        verify_instructions("anything", [])


@pytest.mark.parametrize(
    "piece", ["\n", " ", "*", "**a", "<<", ">>", "[", "]", ".", ". ", "a.", '"', "A-"]
)
def test_time_is_linear_in_the_reply(piece):
    instructions = [(name, kwargs) for name, kwargs, _, _ in CASES]
    start = time.process_time()
    verify_instructions(piece * (100_000 // len(piece)) + "x", instructions)
    assert time.process_time() - start < 3.0
