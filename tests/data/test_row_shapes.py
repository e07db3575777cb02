import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcft_jax.data.sources.shapes import SHAPES, RowError, parse_json, parse_row

text = st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(str.strip)
turns = st.lists(st.tuples(text, text), min_size=1, max_size=4)
system = st.none() | text


def conversation(system, turns):
    opening = [] if system is None else [("system", system)]
    pairs = [[("user", prompt), ("assistant", reply)] for prompt, reply in turns]
    return tuple(sum(pairs, opening))


def as_messages(messages):
    return {"messages": [{"role": role, "content": text} for role, text in messages]}


def as_sharegpt(messages):
    speaker = {"system": "system", "user": "human", "assistant": "gpt"}
    return {
        "conversations": [
            {"from": speaker[role], "value": text} for role, text in messages
        ]
    }


@settings(deadline=None)
@given(system, turns, st.sampled_from([as_messages, as_sharegpt]), st.booleans())
def test_chat_shapes_round_trip(system, turns, write, ascii_only):
    messages = conversation(system, turns)
    record = json.dumps(write(messages), ensure_ascii=ascii_only).encode()
    assert parse_json(record) == messages


@settings(deadline=None)
@given(system, text, text, st.sampled_from(["response", "completion", "alpaca"]))
def test_single_turn_shapes_round_trip(system, prompt, reply, field):
    if field == "alpaca":
        row = {"instruction": prompt, "input": "", "output": reply}
    else:
        row = {"prompt": prompt, field: reply}
    if system is not None:
        row["system"] = system
    messages = conversation(system, [(prompt, reply)])
    assert parse_json(json.dumps(row).encode()) == messages


def test_alpaca_input_follows_the_instruction():
    row = {"instruction": "Translate to French.", "input": "cat", "output": "chat"}
    assert parse_row(row) == (
        ("user", "Translate to French.\n\ncat"),
        ("assistant", "chat"),
    )


def test_a_forced_shape_overrides_detection():
    row = {
        "messages": [{"role": "user", "content": "unused"}],
        "prompt": "1+1",
        "response": "2",
    }
    assert parse_row(row, "prompt_response") == (("user", "1+1"), ("assistant", "2"))
    with pytest.raises(RowError, match="no response"):
        parse_row(row, "messages")


def chat(*turns):
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([1], "must be a JSON object, not list"),
        ({"text": "x"}, r"fields \['text'\] fit no shape"),
        ({"prompt": "x"}, "no response: 'response' is missing"),
        ({"prompt": "x", "response": None}, "'response' is missing"),
        ({"prompt": "x", "response": 3}, "'response' must be text, not int"),
        ({"prompt": "x", "response": " \n"}, "turn 2 is an empty response"),
        ({"prompt": "", "response": "x"}, "turn 1 is an empty prompt"),
        ({"prompt": ["x"], "response": "x"}, "'prompt' must be text, not list"),
        ({"prompt": "x", "response": "\ud800"}, "lone surrogate"),
        ({"prompt": "x", "response": "y", "system": 1}, "'system' must be text"),
        ({"instruction": "x", "input": {}, "output": ""}, "empty response"),
        ({"instruction": "x", "input": 1, "output": "y"}, "'input' must be text"),
        ({"instruction": "x"}, "'output' is missing"),
        ({"messages": []}, "at least one turn"),
        ({"messages": "x"}, "at least one turn"),
        ({"messages": ["x"]}, "is str, no object"),
        ({"messages": [{"role": "user"}]}, "'content' is missing"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, "from='bot'"),
        (chat(("system", "x")), "no response"),
        (chat(("user", "x")), "no response"),
        (chat(("user", "x"), ("assistant", "y"), ("user", "z")), "no response"),
        (chat(("assistant", "x")), "turn 1 is 'assistant' where 'user'"),
        (chat(("user", "x"), ("user", "y")), "turn 2 is 'user' where 'assistant'"),
        (chat(("user", "x"), ("tool", "y")), "turn 2 calls a tool"),
    ],
)
def test_malformed_rows_say_why(row, reason):
    with pytest.raises(RowError, match=reason):
        parse_row(row)


@pytest.mark.parametrize("record", [b"{", b"\xff", b"[" * 100_000, b'{"prompt": "x"'])
def test_malformed_json_says_so(record):
    with pytest.raises(RowError, match="not valid JSON"):
        parse_json(record)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["messages", "role", "content", "prompt", "response", "system",
             "conversations", "from", "value", "instruction", "input", "output"]
        ),
        children,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None)
@given(json_values, st.sampled_from(["auto", *SHAPES]))
def test_any_json_gives_messages_or_a_row_error(value, shape):
    try:
        messages = parse_row(value, shape)
    except RowError:
        return
    roles = [role for role, _ in messages if role != "system"]
    assert roles == ["user", "assistant"] * (len(roles) // 2) != []


CALL = {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "a"}, CALL]},
        {"messages": [{"role": "user", "content": "a"}, {**CALL, "content": None}]},
        {"messages": [{"role": "user", "content": "a"}, {**CALL, "content": "b"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "tool"}]},
        {"messages": [{"role": "user", "content": "a"}], "tools": [{"name": "f"}]},
    ],
)
def test_conversations_with_tools_are_refused(row):
    """Without its calls, a reply would be trained as if it answered by itself."""
    with pytest.raises(RowError, match=r"tools.*not supported"):
        parse_row(row)
