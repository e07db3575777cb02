"""Every kind of item with replies that are right, wrong, and not to be judged."""

import dataclasses

import pytest

from dcft_jax.data import Example
from dcft_jax.evaluation.from_examples import items_of
from dcft_jax.evaluation.items import Item
from dcft_jax.evaluation.judge import chance_level, judge, program_of
from dcft_jax.evaluation.sandbox import Choice, choose_backend


def item(kind: str, **fields) -> Item:
    fields = dict(prompt="?", reference="") | fields
    return Item(id="t/0", task="t", kind=kind, **fields)


ADD = item("program", tests=("assert add(2, 3) == 5",), entry_point="add")
HEAD = 'def add(a, b):\n    """Return the sum."""'
COMPLETE = dataclasses.replace(ADD, metadata={"code_prefix": HEAD})


@pytest.mark.parametrize(
    ("one", "right", "wrong"),
    [
        (item("answer", gold="1/2"), "So it is 0.5.", "So it is 2."),
        (item("exact", gold="Yes"), "yes.", "no"),
        (item("verbatim", gold="SUN NEON"), " SUN NEON\n", "sun neon"),
        (
            item("instructions", instructions=(("punctuation:no_comma", {}),)),
            "none here",
            "one, here",
        ),
    ],
)
def test_texts(one: Item, right: str, wrong: str):
    ((good, bad),) = judge([one], [[right, wrong]])
    assert good.correct is True and not good.reason
    assert bad.correct is False and bad.reason


def test_broken_instructions_are_named():
    pair = (("punctuation:no_comma", {}), ("change_case:english_lowercase", {}))
    ((verdict,),) = judge([item("instructions", instructions=pair)], [["a, B"]])
    assert verdict.reason == "punctuation:no_comma, change_case:english_lowercase"


def test_what_was_not_replied_to_is_not_judged():
    assert judge([item("exact", gold="a")] * 2, [None, ["a"]])[0] is None


def test_choices_are_not_judged_by_a_reply():
    with pytest.raises(ValueError, match="t/0: kind='choice' is not judged"):
        judge([item("choice", choices=("a", "b"), gold=0)], [["a"]])


def test_programs_without_a_sandbox_are_skipped_and_say_why():
    ((verdict,),) = judge([ADD], [["def add(a, b): return a + b"]], Choice(None, "no!"))
    assert (verdict.correct, verdict.reason) == (None, "no!")


@pytest.fixture(scope="module")
def execution() -> Choice:
    choice = choose_backend(allow_weak=True)
    if choice.sandbox is None:
        pytest.skip(choice.reason)
    return choice


def test_programs_run(execution: Choice):
    calls = []
    replies = [
        ["def add(a, b): return a + b", "def add(a, b): return a - b", "def add(a"],
        ["return a + b", "    return a - b", "def add(x, y):\n    return x + y"],
        None,
    ]
    whole, parts, nothing = judge(
        [ADD, COMPLETE, ADD], replies, execution, progress=lambda *n: calls.append(n)
    )
    assert nothing is None and whole is not None and parts is not None
    assert [one.correct for one in whole] == [True, False, False]
    assert [one.correct for one in parts] == [True, False, True]
    assert "AssertionError" in whole[1].reason and "line 1" in whole[2].reason
    assert calls[-1] == (5, 5)  # what does not parse is not run


def test_setup_runs_after_the_program(execution: Choice):
    one = dataclasses.replace(ADD, setup="add = lambda a, b: 5")
    program = program_of(one, "def add(a, b): return 0")
    ((verdict,),) = judge([one], [["def add(a, b): return 0"]], execution)
    assert "lambda" in program.tests and verdict.correct


def test_chance_is_what_the_most_frequent_reply_gets(execution: Choice):
    golds = ["4", "4", "5", "4.0"]
    answers = [item("answer", gold=gold) for gold in golds]
    assert chance_level(answers) == 3 / 4
    choices = [item("choice", choices=("a", "b", "c")[:n], gold=0) for n in (2, 3)]
    assert chance_level(choices) == pytest.approx((1 / 2 + 1 / 3) / 2)
    bodies = ["return a + b", "return a + b", "return b + a"]
    programs = [dataclasses.replace(COMPLETE, reference=body) for body in bodies]
    assert chance_level(programs) != chance_level(programs)  # nan: nothing was run
    assert chance_level(programs, execution) == 1.0


def test_examples_become_items():
    def example(reply: str, prompt=(("user", "?"),), **fields) -> Example:
        return Example((*prompt, ("assistant", reply)), "source", **fields)

    system = (("system", "Be brief."), ("user", "1 + 1?"))
    examples = [
        example("return a", tests=("assert f(1) == 1",), single_reference=True),
        example("2", prompt=system, metadata={"answer": "2"}, single_reference=True),
        example("1 + 1 is 2", metadata={"answer": "2"}),
        example("SUN", single_reference=True),
        example("Hello!"),
        example("unasked", prompt=()),
    ]
    items = items_of("maths", examples)
    kinds = ["program", "answer", "answer", "verbatim", "reference"]
    assert [one.kind for one in items] == kinds
    assert items[0].metadata["code_prefix"] == "?"
    assert items[1].messages == system and items[1].gold == "2"
    assert items[3].gold == "SUN" and items[4].reference == "Hello!"
    assert len({one.id for one in items}) == len(items)
