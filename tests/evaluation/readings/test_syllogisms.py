"""The 256 forms of the syllogism against the lists of logic."""

from itertools import product

import pytest

from dcft_jax.evaluation.readings.syllogisms import syllogism

# Valid without assuming that terms have members, by figure.
UNCONDITIONAL = {
    1: {"AAA", "EAE", "AII", "EIO"},
    2: {"EAE", "AEE", "EIO", "AOO"},
    3: {"IAI", "AII", "OAO", "EIO"},
    4: {"AEE", "IAI", "EIO"},
}
# Valid only if they have.
CONDITIONAL = {
    1: {"AAI", "EAO"},
    2: {"AEO", "EAO"},
    3: {"AAI", "EAO"},
    4: {"AEO", "EAO", "AAI"},
}
# Subject and predicate of both premises; the conclusion is S-P.
FIGURES = {1: ("MP", "SM"), 2: ("PM", "SM"), 3: ("MP", "MS"), 4: ("PM", "MS")}
TERMS = {"S": "cats", "M": "animals", "P": "fish"}
TEMPLATES = {
    "A": "All {} are {}",
    "E": "No {} are {}",
    "I": "Some {} are {}",
    "O": "Some {} are not {}",
}


def statement(form: str, terms: str) -> str:
    return TEMPLATES[form].format(*(TERMS[term] for term in terms))


def question(mood: str, figure: int) -> str:
    major, minor = (
        statement(form, terms)
        for form, terms in zip(mood[:2], FIGURES[figure], strict=True)
    )
    return (
        f"Consider these statements:\n1. {major}\n2. {minor}\n\nDoes it "
        f"logically follow that:\n{statement(mood[2], 'SP')}?\n(Answer Yes or No)"
    )


@pytest.mark.parametrize("figure", FIGURES)
def test_every_mood_of_a_figure(figure):
    for mood in map("".join, product("AEIO", repeat=3)):
        answers = syllogism(question(mood, figure))
        if mood in UNCONDITIONAL[figure]:
            assert answers == {"Yes"}, mood
        elif mood in CONDITIONAL[figure]:
            assert answers == {"Yes", "No"}, mood
        else:
            assert answers == {"No"}, mood


def test_conversions_with_a_premise_that_does_not_matter():
    def converted(premise: str, conclusion: str) -> set[str]:
        other = "Some fish are not cats"
        return syllogism(f"1. {premise}\n2. {other}\n\nIt follows that:\n{conclusion}?")

    assert converted("No cats are dogs", "No dogs are cats") == {"Yes"}
    assert converted("Some cats are dogs", "Some dogs are cats") == {"Yes"}
    assert converted("All cats are dogs", "All dogs are cats") == {"No"}
    assert converted("All cats are dogs", "Some dogs are cats") == {"Yes", "No"}
    assert converted("Some cats are not dogs", "Some dogs are not cats") == {"No"}


def test_what_is_no_syllogism_has_no_answer():
    assert syllogism("All cats are fish. Why?") == set()
    four = "1. All cats are fish\n2. No dogs are birds\n\nAll cats are birds?"
    assert syllogism(four) == set()
