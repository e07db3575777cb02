"""The shapes of a row that users bring, and how each becomes messages.

    messages         {"messages": [{"role": "user", "content": "..."}, ...]}
    prompt_response  {"prompt": "...", "response": "..."}  (or "completion")
    alpaca           {"instruction": "...", "input": "...", "output": "..."}
    sharegpt         {"conversations": [{"from": "human", "value": "..."}, ...]}

All but the first may carry a system prompt in the field "system".
"""

import json
from collections.abc import Mapping
from typing import Any

Messages = tuple[tuple[str, str], ...]

_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}

_TOOL_ROLES = ("tool", "function", "ipython")
_TOOL_FIELDS = ("tool_calls", "function_call", "tool_call_id")


class RowError(ValueError):
    """What is wrong with one row; the caller knows where the row is."""


def check_shape(shape: str) -> None:
    """Raises ValueError unless `shape` is "auto" or the name of a shape."""
    if shape != "auto" and shape not in SHAPES:
        raise ValueError(f"shape={shape!r}; choose one of {['auto', *SHAPES]}")


def parse_json(record: bytes, shape: str = "auto") -> Messages:
    """Messages of one row of JSON text in UTF-8; raises RowError."""
    return parse_row(decode_json(record), shape)


def decode_json(record: bytes) -> Any:
    """The value of JSON text in UTF-8; raises RowError."""
    try:
        return json.loads(record)
    # RecursionError: brackets nested too deeply are malformed for us, too.
    except (ValueError, RecursionError) as error:
        raise RowError(f"not valid JSON ({error})") from error


def parse_row(row: object, shape: str = "auto") -> Messages:
    """(role, content) pairs of a row: [system], then user and assistant in turn.

    Args:
        row: a decoded JSON object.
        shape: name of a shape, or "auto" to tell it by the fields of this row.

    Raises:
        RowError: the row has no known shape, lacks a field, has one of the wrong
            type, its roles do not alternate, or it has no response at its end.
    """
    if not isinstance(row, Mapping):
        raise RowError(f"a row must be a JSON object, not {type(row).__name__}")
    messages = SHAPES[detect_shape(row) if shape == "auto" else shape](row)
    if system := row.get("system"):
        messages = (("system", _text(system, "system")), *messages)
    _check_turns(messages)
    return messages


def detect_shape(row: Mapping[str, Any]) -> str:
    """Name of the shape whose first field the row has; raises RowError."""
    for shape, field in _TELLING_FIELD.items():
        if field in row:
            return shape
    raise RowError(
        f"fields {sorted(map(str, row))} fit no shape; "
        f"a row needs one of {[*_TELLING_FIELD.values()]}"
    )


def _from_messages(row: Mapping[str, Any]) -> Messages:
    turns = _turns(row, "messages")
    for number, turn in enumerate(turns, 1):
        if turn.get("role") in _TOOL_ROLES or any(turn.get(f) for f in _TOOL_FIELDS):
            raise RowError(
                f"turn {number} calls a tool or answers for one; conversations with "
                "tools are not supported"
            )
    if row.get("tools"):
        raise RowError("the row offers 'tools', which are not supported")
    return tuple(
        (_text(turn.get("role"), "role"), _text(turn.get("content"), "content"))
        for turn in turns
    )


def _from_sharegpt(row: Mapping[str, Any]) -> Messages:
    turns = []
    for turn in _turns(row, "conversations"):
        speaker = _text(turn.get("from"), "from")
        if speaker not in _SHAREGPT_ROLES:
            raise RowError(f"from={speaker!r} is not one of {[*_SHAREGPT_ROLES]}")
        turns.append((_SHAREGPT_ROLES[speaker], _text(turn.get("value"), "value")))
    return tuple(turns)


def _from_prompt_response(row: Mapping[str, Any]) -> Messages:
    field = "completion" if "completion" in row else "response"
    return _single_turn(_text(row.get("prompt"), "prompt"), row, field)


def _from_alpaca(row: Mapping[str, Any]) -> Messages:
    prompt = _text(row.get("instruction"), "instruction")
    if extra := row.get("input"):
        prompt = f"{prompt}\n\n{_text(extra, 'input')}"
    return _single_turn(prompt, row, "output")


def _single_turn(prompt: str, row: Mapping[str, Any], field: str) -> Messages:
    if row.get(field) is None:
        raise RowError(f"the row has no response: {field!r} is missing")
    return (("user", prompt), ("assistant", _text(row[field], field)))


def _turns(row: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    turns = row.get(field)
    if not isinstance(turns, list) or not turns:
        raise RowError(f"{field!r} must be a list with at least one turn")
    for turn in turns:
        if not isinstance(turn, Mapping):
            raise RowError(f"a turn in {field!r} is {type(turn).__name__}, no object")
    return turns


def _text(value: object, field: str) -> str:
    if value is None:
        raise RowError(f"{field!r} is missing")
    if not isinstance(value, str):
        raise RowError(f"{field!r} must be text, not {type(value).__name__}")
    try:
        value.encode()  # JSON can spell half a surrogate pair; UTF-8 cannot
    except UnicodeEncodeError as error:
        raise RowError(f"{field!r} holds a lone surrogate") from error
    return value


def _check_turns(messages: Messages) -> None:
    turns = messages[1:] if messages[0][0] == "system" else messages
    for index, (role, content) in enumerate(turns):
        expected = "assistant" if index % 2 else "user"
        if role != expected:
            raise RowError(
                f"turn {index + 1} is {role!r} where {expected!r} is expected: "
                "[system], then user and assistant in turn"
            )
        if not content.strip():
            name = "response" if role == "assistant" else "prompt"
            raise RowError(f"turn {index + 1} is an empty {name}")
    if not turns or turns[-1][0] != "assistant":
        raise RowError("the row has no response: its last turn must be the assistant's")


SHAPES = {
    "messages": _from_messages,
    "prompt_response": _from_prompt_response,
    "alpaca": _from_alpaca,
    "sharegpt": _from_sharegpt,
}
_TELLING_FIELD = {
    "messages": "messages",
    "sharegpt": "conversations",
    "alpaca": "instruction",
    "prompt_response": "prompt",
}
