"""Training examples that repeat a test item are found."""

import pytest

from dcft_jax.data.example import Example
from dcft_jax.evaluation.items import Item
from dcft_jax.evaluation.overlap import held_out_examples, overlapping

LONG = "a train leaves at nine and another one leaves at ten from the same town today"
ITEMS = [
    Item("t/0", "t", LONG, "answer", "It is ten. #### 10", gold="10"),
    Item("t/1", "t", "2 + 2?", "answer", "4", gold="4"),
    Item(
        *("p/0", "p", "Write f that adds one.\nThe code has to pass these tests: ..."),
        *("program", "def f(n):\n    return n + 1"),
        tests=("assert f(1) == 2",),
        metadata={"text": "Write f that adds one."},
    ),
]


def example(prompt: str, reply: str = "ok") -> Example:
    return Example((("user", prompt), ("assistant", reply)), "train")


@pytest.mark.parametrize(
    ("train", "found"),
    [
        (example("  2 +  2? "), True),  # too short for n-grams, equal once normalised
        (example("2 + 3?"), False),
        (example(f"Tell me: {LONG.upper()}! And why?"), True),
        (example("Say it.", LONG), True),
        (example(" ".join(LONG.split()[:-1])), True),  # is held whole
        (example(" ".join(LONG.split()[:12])), False),  # 12 words
        (example("write f that adds one."), True),  # without what we added to it
        (example("Write g that adds one."), False),
    ],
)
def test_overlap(train, found):
    others = [example(f"something else, {n}") for n in range(3)]
    expected = {3} if found else set()
    assert overlapping([*others, train], ITEMS, ngram=13) == expected


def test_without_ngrams_only_equal_prompts_count():
    train = [example("2 + 2?"), example(f"Tell me: {LONG}")]
    assert overlapping(train, ITEMS, ngram=0) == {0}
    with pytest.raises(ValueError, match="-1"):
        overlapping(train, ITEMS, ngram=-1)


def test_an_item_gives_its_published_text_as_well():
    prompts = [e.prompt[0][1] for e in held_out_examples(ITEMS)]
    assert prompts == [*(item.prompt for item in ITEMS), "Write f that adds one."]
