"""One question of a test set, and the JSON Lines it is kept as."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from dcft_jax.data.atomic_write import atomic_write

KINDS = (
    *("answer", "exact", "verbatim", "choice", "program", "instructions"),
    "reference",
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        id: unique among all items of a suite.
        task: the test set it belongs to.
        prompt: plain text of the user's turn; the chat template is applied later.
        kind: how a reply is judged.
            "answer": its final answer is the same mathematical value as `gold`.
            "exact": it is the text `gold`, whatever its case and final punctuation.
            "verbatim": it is the text `gold`, but for white space around it.
            "choice": no reply; the most likely of `choices` is the one `gold` counts.
            "program": its code passes `tests`.
            "instructions": it follows `instructions`.
            "reference": not at all; only the likelihood of `reference` counts.
        reference: a right reply, for bits per byte; "" if there is none.
        choices: "choice" only; at least two.
        gold: the answer or text; for "choice" the index of the right one; else None.
        tests: "program" only; code that raises unless the program is right.
        entry_point: name of the function that `tests` call, if there is one.
        setup: code that `tests` need besides the program, to run after it.
        history: the (role, content) turns before the prompt, if any.
        instructions: (name, arguments) pairs, names as those of IFEval.
        metadata: small JSON-able extras. `code_prefix`, the published prompt of a
            HumanEval task; `text`, the task without what was added to make a prompt.
    """

    id: str
    task: str
    prompt: str
    kind: str
    reference: str
    choices: tuple[str, ...] = ()
    gold: str | int | None = None
    tests: tuple[str, ...] = ()
    entry_point: str = ""
    setup: str = ""
    history: tuple[tuple[str, str], ...] = ()
    instructions: tuple[tuple[str, Mapping[str, Any]], ...] = field(
        default=(), hash=False
    )
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in ("id", "task", "prompt"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty")
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is none of {', '.join(KINDS)}")
        _CHECKS[self.kind](self)

    @property
    def messages(self) -> tuple[tuple[str, str], ...]:
        """The conversation that is to be continued."""
        return (*self.history, ("user", self.prompt))


def _check_text(item: Item) -> None:
    if not isinstance(item.gold, str) or not item.gold:
        raise ValueError(f"gold={item.gold!r} must be text for kind={item.kind!r}")


def _check_choice(item: Item) -> None:
    if len(item.choices) < 2:
        raise ValueError(f"choices={list(item.choices)} must be two or more")
    whole = isinstance(item.gold, int) and not isinstance(item.gold, bool)
    if not whole or item.gold not in range(len(item.choices)):
        raise ValueError(
            f"gold={item.gold!r} must be an index of {len(item.choices)} choices"
        )


def _check_program(item: Item) -> None:
    if not item.tests:
        raise ValueError("tests is empty; a program needs at least one")


def _check_instructions(item: Item) -> None:
    if not item.instructions:
        raise ValueError("instructions is empty; there must be at least one")


def _check_reference(item: Item) -> None:
    if not item.reference:
        raise ValueError("reference is empty; there is nothing else to score")


_CHECKS = {
    "answer": _check_text,
    "exact": _check_text,
    "verbatim": _check_text,
    "choice": _check_choice,
    "program": _check_program,
    "instructions": _check_instructions,
    "reference": _check_reference,
}

_FIELDS = {f.name: f for f in fields(Item)}
_REQUIRED = [
    name
    for name, f in _FIELDS.items()
    if f.default is MISSING and f.default_factory is MISSING
]
_TEXT = ("id", "task", "prompt", "kind", "reference", "entry_point", "setup")
_TEXTS = ("choices", "tests")


def item_to_row(item: Item) -> Row:
    """The JSON object of an item; fields that are empty are left out."""
    row = {name: getattr(item, name) for name in _FIELDS}
    for name in _TEXTS:
        row[name] = list(row[name])
    row["history"] = [list(turn) for turn in row["history"]]
    row["instructions"] = [[name, dict(args)] for name, args in item.instructions]
    row["metadata"] = dict(item.metadata)
    return {
        name: value
        for name, value in row.items()
        if name in _REQUIRED or value not in (None, "", [], {})
    }


def item_from_row(row: Any, where: str = "row") -> Item:
    """The item of a JSON object.

    Args:
        where: for messages, such as "file.jsonl:3".

    Raises:
        ValueError: an unknown, missing or malformed field; the message names it.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{where}: {row!r} is no JSON object")
    if unknown := sorted(row.keys() - _FIELDS.keys()):
        raise ValueError(
            f"{where}: unknown field {unknown[0]!r}; there are {', '.join(_FIELDS)}"
        )
    if missing := [name for name in _REQUIRED if name not in row]:
        raise ValueError(f"{where}: the field {missing[0]!r} is missing")
    try:
        return Item(**{name: _parse(name, value) for name, value in row.items()})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _parse(name: str, value: Any) -> Any:
    """The value of a field of a row as that of an item."""
    if name in _TEXT:
        if not isinstance(value, str):
            raise ValueError(f"{name}={value!r} must be text")
        return value
    if name in _TEXTS:
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise ValueError(f"{name}={value!r} must be a list of texts")
        return tuple(value)
    if name == "instructions":
        return _parse_instructions(value)
    if name == "history":
        return _parse_history(value)
    if name == "metadata" and not isinstance(value, dict):
        raise ValueError(f"metadata={value!r} must be an object")
    return value


def _parse_history(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list) or not all(map(_is_turn, value)):
        raise ValueError(f"history={value!r} must be [role, content] pairs")
    return tuple((role, content) for role, content in value)


def _is_turn(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(part, str) for part in value)
    )


def _parse_instructions(value: Any) -> tuple[tuple[str, Row], ...]:
    if not isinstance(value, list) or not all(map(_is_instruction, value)):
        raise ValueError(f"instructions={value!r} must be a list of [name, object]")
    return tuple((name, args) for name, args in value)


def _is_instruction(pair: Any) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and isinstance(pair[1], dict)
    )


def save_items(items: Iterable[Item], path: str | Path) -> None:
    """Writes JSON Lines; the file is replaced whole."""
    rows = (json.dumps(item_to_row(item), ensure_ascii=False) for item in items)
    atomic_write(path, "".join(f"{row}\n" for row in rows))


def load_items(path: str | Path) -> list[Item]:
    """Reads JSON Lines as `save_items` writes them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a malformed line, or an id that occurs twice; the message names
            file, line and field.
    """
    items: dict[str, Item] = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
            item = item_from_row(row, where)
            if item.id in items:
                raise ValueError(f"{where}: id={item.id!r} is there already")
            items[item.id] = item
    return list(items.values())
