"""Requirements on fields, and what is said where one is not met."""

from collections.abc import Iterable, Mapping
from typing import Any


def require(condition: bool, field: str, value: Any, constraint: str) -> None:
    if not condition:
        raise ValueError(f"config.{field} = {value!r}: {constraint}")


def one_of(field: str, value: str, choices: Iterable[str]) -> None:
    require(value in choices, field, value, f"must be one of {', '.join(choices)}")


def positive(group: str, values: Mapping, names: Iterable[str]) -> None:
    for name in names:
        value = values[name]
        require(value >= 1, f"{group}.{name}", value, "must be at least 1")
