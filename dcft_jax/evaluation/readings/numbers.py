"""Bases and angles."""

import re

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASE = r"(binary|hexadecimal|base-\d+)"
_CONVERSION = re.compile(rf"convert the {_BASE} number (\w+) to {_BASE}\s*$")

_SIDES = re.compile(r"(\d+)(?: sides|-gon)")
_ANGLE = re.compile(r"(\d+(?:\.\d+)?)°")


def base_conversion(question: str) -> set[str]:
    found = _CONVERSION.search(question)
    if found is None:
        return set()
    source, number, target = found.groups()
    return {_write(int(number, _base(source)), _base(target))}


def _base(name: str) -> int:
    named = {"binary": 2, "hexadecimal": 16}
    return named.get(name) or int(name.removeprefix("base-"))


def _write(number: int, base: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, base)
        digits = _DIGITS[digit] + digits
    return digits


def simple_geometry(question: str) -> set[str]:
    """The last angle; none, if no convex polygon has the others."""
    sides = _SIDES.search(question)
    angles = [float(angle) for angle in _ANGLE.findall(question)]
    if sides is None or len(angles) != int(sides[1]) - 1:
        return set()
    last = 180 * (int(sides[1]) - 2) - sum(angles)
    if not 0 < last < 180 or not all(0 < angle < 180 for angle in angles):
        return set()
    return {f"{last:.10g}"}
