"""Checks of a rule's options, when the rule is made."""


def require(valid: bool, name: str, value: object, expected: str) -> None:
    """Raises ValueError that names `mixture.<name>`, its value and what is expected."""
    if not valid:
        raise ValueError(f"mixture.{name} is {value}, expected {expected}.")


def require_between(name: str, value: float, low: float, high: float) -> None:
    """`low <= value < high`."""
    require(low <= value < high, name, value, f"in [{low:g}, {high:g})")


def require_count(name: str, value: int, lowest: int = 1) -> None:
    """A whole number, at least `lowest`."""
    valid = isinstance(value, int) and value >= lowest
    require(valid, name, value, f"a whole number, at least {lowest}")
