"""Items of a test set as JSON Lines."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcft_jax.evaluation.items import (
    KINDS,
    Item,
    item_from_row,
    item_to_row,
    load_items,
    save_items,
)

TEXT = st.text(min_size=1, max_size=20)
ANY_JSON = st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.none()), max_size=3)
TEXTS = st.lists(TEXT, min_size=2, max_size=4).map(tuple)


@st.composite
def items(draw) -> Item:
    kind = draw(st.sampled_from(KINDS))
    own: dict = {}
    if draw(st.booleans()):
        own["history"] = draw(st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple))
    if kind == "choice":
        own["choices"] = choices = draw(TEXTS)
        own["gold"] = draw(st.integers(0, len(choices) - 1))
    elif kind == "program":
        own["tests"] = draw(TEXTS)
        own["setup"] = draw(st.text(max_size=9))
        own["entry_point"] = draw(st.text(string.ascii_lowercase, max_size=9))
    elif kind == "instructions":
        pairs = st.lists(st.tuples(TEXT, ANY_JSON), min_size=1, max_size=3)
        own["instructions"] = tuple(draw(pairs))
    elif kind != "reference":
        own["gold"] = draw(TEXT)
    reference = draw(st.text(min_size=int(kind == "reference"), max_size=9))
    return Item(
        *(draw(TEXT), draw(TEXT), draw(TEXT), kind, reference),
        **own,
        metadata=draw(ANY_JSON),
    )


@given(items())
def test_the_row_of_an_item_gives_it_back(item):
    row = json.loads(json.dumps(item_to_row(item)))
    assert item_from_row(row) == item
    assert hash(item_from_row(row)) == hash(item)


def test_the_conversation_is_history_and_prompt():
    history = (("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi"))
    item = Item("t/0", "t", "2 + 2?", "answer", "", gold="4", history=history)
    assert item.messages == (*history, ("user", "2 + 2?"))
    assert item_from_row(item_to_row(item)) == item


@given(st.lists(items(), max_size=4, unique_by=lambda item: item.id))
def test_a_file_gives_its_items_back(tmp_path_factory, some):
    path = tmp_path_factory.mktemp("items") / "some.jsonl"
    save_items(some, path)
    assert load_items(path) == some


GOOD = dict(id="t/0", task="t", prompt="2 + 2?", kind="answer", reference="", gold="4")
CHOICE = {**GOOD, "kind": "choice", "choices": ["a", "b"], "gold": 0}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], r"\[\] is no JSON object"),
        ({**GOOD, "golds": "4"}, "unknown field 'golds'; there are id, task"),
        ({k: v for k, v in GOOD.items() if k != "prompt"}, "'prompt' is missing"),
        ({**GOOD, "prompt": 4}, "prompt=4 must be text"),
        ({**GOOD, "prompt": ""}, "prompt is empty"),
        ({**GOOD, "kind": "essay"}, "kind='essay' is none of answer, exact"),
        ({**GOOD, "gold": 4}, "gold=4 must be text for kind='answer'"),
        ({**GOOD, "gold": None}, "gold=None must be text"),
        ({**CHOICE, "gold": 2}, "gold=2 must be an index of 2 choices"),
        ({**CHOICE, "gold": True}, "gold=True must be an index"),
        ({**CHOICE, "gold": "a"}, "gold='a' must be an index"),
        ({**CHOICE, "choices": ["a"]}, "must be two or more"),
        ({**GOOD, "kind": "reference"}, "reference is empty"),
        ({**GOOD, "history": [["user"]]}, "must be .role, content. pairs"),
        ({**CHOICE, "choices": "ab"}, "choices='ab' must be a list of texts"),
        ({**GOOD, "kind": "program", "tests": []}, "tests is empty"),
        ({**GOOD, "kind": "instructions"}, "instructions is empty"),
        ({**GOOD, "instructions": [["a"]]}, "must be a list of .name, object"),
        ({**GOOD, "metadata": []}, "metadata=.. must be an object"),
    ],
)
def test_a_malformed_row_is_named_with_its_field(tmp_path, row, message):
    path = tmp_path / "some.jsonl"
    path.write_text(json.dumps({**GOOD, "id": "t/1"}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=rf"some\.jsonl:2: .*{message}"):
        load_items(path)


def test_a_line_that_is_no_json_and_an_id_that_is_there(tmp_path):
    path = tmp_path / "some.jsonl"
    line = json.dumps(GOOD) + "\n"
    path.write_text(line + "{")
    with pytest.raises(ValueError, match=r"some\.jsonl:2: "):
        load_items(path)
    path.write_text(line + line)
    with pytest.raises(ValueError, match=r"some\.jsonl:2: id='t/0' is there already"):
        load_items(path)
