"""Whether the label of a generated question is its one right answer."""

from collections.abc import Callable

from dcft_jax.evaluation.readings import (
    calendars,
    families,
    intervals,
    numbers,
    programs,
    syllogisms,
)

# Family of Reasoning Gym -> all answers that the text of a question allows.
READINGS: dict[str, Callable[[str], set[str]]] = {
    "aiw": families.aiw,
    "base_conversion": numbers.base_conversion,
    "bf": programs.bf,
    "calendar_arithmetic": calendars.calendar_arithmetic,
    "family_relationships": families.family_relationships,
    "simple_geometry": numbers.simple_geometry,
    "syllogism": syllogisms.syllogism,
    "time_intervals": intervals.time_intervals,
}


def is_unambiguous(family: str, question: str, label: str) -> bool:
    """Whether the question has one answer, and the label is it.

    The answer is computed from the text of the question alone; see
    `dcft_jax.evaluation.readings`.

    Raises:
        ValueError: no reading of that family.
    """
    if family not in READINGS:
        raise ValueError(f"family {family!r}: there are readings of {[*READINGS]}")
    return READINGS[family](question) == {label}
