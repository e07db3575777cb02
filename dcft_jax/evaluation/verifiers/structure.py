r"""What kind of thing an answer is: a value, a collection, a relation, or words.

Reads `notation.plain` text. Nothing is guessed: what cannot be read as mathematics
is `Words`, and equal only to the same words.
"""

import dataclasses
import re
from itertools import pairwise
from math import gcd

from dcft_jax.evaluation.verifiers.algebra import Values, evaluate, same_values
from dcft_jax.evaluation.verifiers.expression import (
    Node,
    Number,
    Operation,
    UnreadableError,
    parse,
)
from dcft_jax.evaluation.verifiers.notation import text_key
from dcft_jax.evaluation.verifiers.units import split_unit

MAX_ITEMS = 100  # of a collection
MAX_NESTING = 5  # of collections


@dataclasses.dataclass(frozen=True)
class Words:
    """`product`: what up to three letters are worth if they are variables."""

    key: str
    product: Values | None = None


@dataclasses.dataclass(frozen=True)
class Quantity:
    """An expression with its unit.

    `finished`: it is a number as one writes a result, with nothing left to compute.
    """

    values: Values
    unit: str
    finished: bool


@dataclasses.dataclass(frozen=True)
class Collection:
    """`kind`: "()", "[)" ... of a tuple or interval, "matrix", "union", or "{}" of a
    set and of a bare list, both without order."""

    kind: str
    items: tuple["Answer", ...]


@dataclasses.dataclass(frozen=True)
class Equation:
    """`name` = `side`, if the left side is a lone name; always left - right = 0."""

    name: str
    side: "Answer | None"
    difference: Values | None


@dataclasses.dataclass(frozen=True)
class Inequality:
    """Sides in growing order; each relation is "<" or "≤"."""

    sides: tuple["Answer", ...]
    relations: tuple[str, ...]


Answer = Words | Quantity | Collection | Equation | Inequality

_OPEN, _CLOSE = "([{⦃", ")]}⦄"
_AND = re.compile(r'\s*"?\b(?:and|or)\b"?\s*', re.IGNORECASE)
_NAME = re.compile(r"(?:[A-Za-z]|\\[a-z]+)(?:_\w|_\{\w+\})?'?(?:\([A-Za-z]\))?")
_MATRIX = re.compile(
    r"\\begin\{([pb]?matrix)\}((?:(?!\\begin|\\end).)*)\\end\{\1\}", re.DOTALL
)
_FLIPPED = {">": "<", "≥": "≤"}


def read(text: str, nesting: int = 0) -> Answer:
    """The structure of a `notation.plain` text."""
    words = Words(text_key(text))
    if nesting > MAX_NESTING:
        return words
    text = text.strip()
    if text.startswith('"') and text.endswith('"') and text.count('"') == 2:
        text = text[1:-1].strip()
    if re.fullmatch(r"[^\W\d_]{2,}", text):
        return Words(words.key, _product(text))
    if text in (r"\emptyset", "⦃⦄", "⦃ ⦄"):
        return Collection("{}", ())
    for reader in (_read_parts, _read_group, _read_relation, _read_quantity):
        try:
            answer = reader(text, nesting)
        except UnreadableError:
            return words
        if answer is not None:
            return answer
    return words


def is_finished(answer: Answer) -> bool:
    """Whether every quantity is a literal number in lowest terms; words are."""
    if isinstance(answer, Quantity):
        return answer.finished
    if isinstance(answer, Collection):
        return all(map(is_finished, answer.items))
    if isinstance(answer, Equation):
        return answer.side is not None and is_finished(answer.side)
    return isinstance(answer, Words) or all(map(is_finished, answer.sides))


def _split(text: str, separators: str) -> list[str]:
    """Splits at characters outside of all brackets."""
    return _split_at(text, separators)[0]


def _split_at(text: str, separators: str) -> tuple[list[str], list[str]]:
    """The parts and the separators between them; [0, 1) counts as a pair too."""
    parts, found, depth, start = [], [], 0, 0
    for i, c in enumerate(text):
        if c in _OPEN:
            depth += 1
        elif c in _CLOSE:
            depth -= 1
        elif depth == 0 and c in separators:
            parts.append(text[start:i].strip())
            found.append(c)
            start = i + 1
    return [*parts, text[start:].strip()], found


def _items(parts: list[str], nesting: int) -> tuple[Answer, ...]:
    if len(parts) > MAX_ITEMS or not all(parts):
        raise UnreadableError(f"empty items, or more than {MAX_ITEMS}")
    return tuple(read(part, nesting + 1) for part in parts)


def _read_parts(text: str, nesting: int) -> Answer | None:
    """Unions, lists and both signs: what is written without brackets around it."""
    head, *tail = _split(text, "∈")
    if len(tail) == 1 and _NAME.fullmatch(head):
        return read(tail[0], nesting + 1)
    if len(parts := _split(text, "\u222a")) > 1:
        return Collection("union", _items(parts, nesting))
    parts = [p for part in _split(text, ",;") for p in _AND.split(part)]
    if "," in text and len(parts) > 2:  # "1, 2, and 3" has nothing before the "and"
        parts = [part for part in parts if part]
    if len(parts) > 1:
        return Collection("{}", _items(parts, nesting))
    if "±" in text:
        both = [text.replace("±", "+"), text.replace("±", "-")]
        return Collection("{}", _items(both, nesting))
    return None


def _read_group(text: str, nesting: int) -> Answer | None:
    """What stands inside one pair of brackets, or a matrix."""
    if matrix := _MATRIX.fullmatch(text):
        rows = [row for row in matrix[2].split(r"\\") if row.strip()]
        cells = [_items(_split(row, "&"), nesting + 1) for row in rows[:MAX_ITEMS]]
        return Collection("matrix", tuple(Collection("row", row) for row in cells))
    if not text or text[0] not in _OPEN or text[-1] not in _CLOSE:
        return None
    inner = text[1:-1]
    depth = 1
    for c in inner:
        depth += (c in _OPEN) - (c in _CLOSE)
        if depth == 0:
            return None  # the first bracket is closed before the end
    kind = text[0] + text[-1]
    parts = _split(inner, ",;")
    if kind in ("⦃⦄", "{}"):
        if kind == "{}" and len(parts) == 1:
            return read(inner, nesting + 1)
        return Collection("{}", _items(parts, nesting))
    if len(parts) > 1:
        return Collection(kind, _items(parts, nesting))
    return read(inner, nesting + 1) if kind in ("()", "[]") else None


def _read_relation(text: str, nesting: int) -> Answer | None:
    sides, relations = _split_at(text, "=<>≤≥")
    if not relations:
        return None
    if not all(sides):
        raise UnreadableError("a relation without one of its sides")
    if set(relations) == {"="}:
        return _read_equation(sides, nesting)
    if set(relations) <= {">", "≥"}:
        sides, relations = sides[::-1], [_FLIPPED[r] for r in relations[::-1]]
    if not set(relations) <= {"<", "≤"}:
        raise UnreadableError("relations in both directions")
    return Inequality(_items(sides, nesting), tuple(relations))


def _read_equation(sides: list[str], nesting: int) -> Answer:
    name = text_key(sides[0]) if _NAME.fullmatch(sides[0]) else ""
    first, *rest = _items(sides[1:] if name else sides, nesting)
    if rest and _is_computation([first, *rest]):  # 9 + 9 = 18 says 18
        return rest[-1]
    if len(sides) != 2:
        raise UnreadableError("more than one equals sign")
    left, right = sides
    side = first if name else None
    try:
        negated = Operation("negate", (parse(right),))
        difference = evaluate(Operation("add", (parse(left), negated)))
    except UnreadableError:  # such as x = (1, 2), which is compared by its side
        difference = None
    if side is None and difference is None:
        raise UnreadableError("an equation between what cannot be read")
    return Equation(name, side, difference)


def _product(letters: str) -> Values | None:
    try:
        return evaluate(parse(letters))
    except UnreadableError:
        return None


def _is_computation(steps: list[Answer]) -> bool:
    """Whether numbers are equal, and said to be so."""
    numbers = [s.values for s in steps if isinstance(s, Quantity) and s.values.constant]
    return len(numbers) == len(steps) and all(
        same_values(a, b) for a, b in pairwise(numbers)
    )


def _read_quantity(text: str, nesting: int) -> Answer:
    body, unit = split_unit(text)
    node = parse(body)
    return Quantity(evaluate(node), unit, _is_result(node))


def _is_result(node: Node) -> bool:
    """Whether a number is written as a result: 12, -0.5, 3/4, 2 1/2, 1.5 * 10^3."""
    if isinstance(node, Number):
        return True
    if not isinstance(node, Operation):
        return False
    first, *rest = node.args
    if node.name == "negate":
        return _is_result(first)
    if node.name == "mixed":
        return _is_result(rest[0])
    if node.name == "divide":
        top, bottom = _integer(first), _integer(rest[0])
        return bottom > 1 and gcd(top, bottom) == 1
    if node.name == "multiply" and len(rest) == 1 and isinstance(rest[0], Operation):
        power = rest[0]  # scientific notation
        return (
            power.name == "power"
            and isinstance(first, Number)
            and _integer(power.args[0]) == 10
            and _integer(power.args[1]) != 0
        )
    return False


def _integer(node: Node) -> int:
    """The integer that a node writes; 0 if it is something else."""
    if isinstance(node, Operation) and node.name == "negate":
        return -_integer(node.args[0])
    if isinstance(node, Number) and node.value.denominator == 1:
        return node.value.numerator
    return 0
