"""One wording for options that are out of range."""

from typing import Any


def require(sound: bool, option: str, value: Any, expected: str) -> None:
    if not sound:
        raise ValueError(f"mixture.{option} is {value}, expected {expected}.")


def require_step_size(step_size: float) -> None:
    sound = 0 <= step_size < float("inf")
    require(sound, "step_size", step_size, "a number in [0, inf)")


def require_share(option: str, value: float) -> None:
    """A share that must leave something to the rest."""
    require(0 <= value < 1, option, value, "a number in [0, 1)")


def require_between(option: str, value: float, low: float, high: float) -> None:
    """`low <= value < high`."""
    require(low <= value < high, option, value, f"in [{low:g}, {high:g})")


def require_count(option: str, value: int, lowest: int = 1) -> None:
    sound = value == int(value) and value >= lowest
    require(sound, option, value, f"an integer >= {lowest}")
