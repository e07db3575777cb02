"""How hard an example is by its source's own account: `metadata["difficulty"]`."""

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from dcft_jax.data.sources.shapes import RowError

Metadata = dict[str, Any]

_OPERATIONS = (
    *(ast.operator, ast.unaryop, ast.cmpop, ast.boolop),
    *(ast.Call, ast.Subscript, ast.comprehension),
    *(ast.If, ast.IfExp, ast.For, ast.While, ast.Try, ast.With),
    *(ast.Return, ast.Raise, ast.Assign, ast.AugAssign),
)


def code_level(body: str) -> int:
    """Operations, calls, branches, loops and assignments of a function body."""
    # A body may return, so it is parsed inside of a function.
    lines = "\n".join(f" {line}" for line in body.splitlines())
    return _count_operations(f"def f():\n{lines}")


@lru_cache(maxsize=2**14)
def _count_operations(code: str) -> int:
    return sum(isinstance(node, _OPERATIONS) for node in ast.walk(ast.parse(code)))


def level_reader(
    field: str, names: Sequence[str]
) -> Callable[[Mapping[str, Any]], Metadata]:
    """Reads the level of a row from one of its fields.

    Args:
        field: of the row; empty: rows give no level.
        names: values of the field, easiest first; empty: the field holds numbers.

    Raises:
        ValueError: names without a field, or the same name twice.
    """
    names = tuple(names)
    if names and not field:
        raise ValueError(f"difficulty_levels={names} needs a difficulty_field")
    if len(set(names)) < len(names):
        raise ValueError(f"difficulty_levels={names} holds a name twice")

    def read(row: Mapping[str, Any]) -> Metadata:
        if not field:
            return {}
        value = row.get(field)
        if names:
            return {"difficulty": _position(value, field, names)}
        return {"difficulty": _number(value, field)}

    return read


def _position(value: object, field: str, names: tuple[str, ...]) -> int:
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    if text not in names:
        raise RowError(f"{field}={text!r} is not one of difficulty_levels={names}")
    return names.index(text)


def _number(value: Any, field: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise RowError(
            f"{field}={value!r} is not a number; if it names levels, list them, "
            "easiest first, in difficulty_levels"
        )
    return number


def mean_position(
    value_of: Mapping[str, Any], range_of: Mapping[str, Any]
) -> float | None:
    """Where an item's settings lie in the ranges they were drawn from, from 0 to 1.

    The mean over the settings whose range is (low, high) with low < high and whose
    value in the item is a number; None if there is none.
    """
    positions = []
    for name, bounds in range_of.items():
        value = value_of.get(name)
        if isinstance(value, int | float) and _is_range(bounds):
            low, high = bounds
            positions.append((value - low) / (high - low))
    return sum(positions) / len(positions) if positions else None


def _is_range(bounds: object) -> bool:
    return (
        isinstance(bounds, tuple | list)
        and len(bounds) == 2
        and all(isinstance(bound, int | float) for bound in bounds)
        and bounds[0] < bounds[1]
    )
