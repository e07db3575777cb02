"""Dates and weekdays."""

import calendar
import re
from collections.abc import Callable
from datetime import date, timedelta

_DAYS = "|".join(calendar.day_name)
_MONTHS = "|".join(calendar.month_name[1:])
_DATE = re.compile(rf"(?:({_DAYS}), )?({_MONTHS}) (\d+)(?:, (\d+))?")
_SLASHED = re.compile(r"(\d\d)/(\d\d)/(\d+)")
_OFFSET = re.compile(r"\b(\d+)[- ]days?\b")
_BACKWARD = re.compile(r"\bago\b|\bbefore\b|\bbackward\b")
_LEAP = re.compile(r"\b(\d+) (?:is )?a leap year")
_FIRST_DAY = re.compile(
    rf"(?:first day of the year was a|January 1 fell on a|In a year where) ({_DAYS})"
)
_ORDINAL = re.compile(rf"\b(first|second|third|fourth|last) ({_DAYS})\b")
_MONTH = re.compile(rf"\b({_MONTHS}) (\d+)\b")
_COUNTED = re.compile(
    rf"How many ({_DAYS})s\b|occurrences of ({_DAYS})\b|times does ({_DAYS})\b"
)


def calendar_arithmetic(question: str) -> set[str]:
    for pattern, read in _READERS:
        if pattern.search(question):
            return read(question)
    return set()


def _dates(question: str) -> list[date] | None:
    """Those written out, in the year of the last; None: a weekday is not theirs."""
    found = _DATE.findall(question)
    years = [int(year) for *_, year in found if year]
    dates = []
    for weekday, month, day, _ in found:
        months = [*calendar.month_name]
        dates.append(date(years[-1], months.index(month), int(day)))
        if weekday and calendar.day_name[dates[-1].weekday()] != weekday:
            return None
    return dates


def _weekday(day: date) -> str:
    return calendar.day_name[day.weekday()]


def _leap_year(question: str) -> set[str]:
    (year,) = _LEAP.findall(question)
    return {"Yes" if calendar.isleap(int(year)) else "No"}


def _from_first_day(question: str) -> set[str]:
    """Both weekdays after February: the year may be a leap year."""
    first = [*calendar.day_name].index(_FIRST_DAY.findall(question)[0])
    # The last month and day; an example may be January 1 itself.
    month, day = _MONTH.findall(question)[-1]
    number = [*calendar.month_name].index(month)
    names = set()
    for year in (2023, 2024):
        passed = (date(year, number, int(day)) - date(year, 1, 1)).days
        names.add(calendar.day_name[(first + passed) % 7])
    return names


def _recurring(question: str) -> set[str]:
    ordinal, weekday = _ORDINAL.findall(question)[0]
    month, year = _MONTH.findall(question)[0]
    number = [*calendar.month_name].index(month)
    _, length = calendar.monthrange(int(year), number)
    days = [
        day
        for day in range(1, length + 1)
        if _weekday(date(int(year), number, day)) == weekday
    ]
    index = ("first", "second", "third", "fourth", "last").index(ordinal)
    return {str(days[-1] if ordinal == "last" else days[index])}


def _counted(question: str) -> set[str]:
    names = next(name for name in _COUNTED.findall(question)[0] if name)
    return _count(question, lambda day: _weekday(day) == names)


def _business_days(question: str) -> set[str]:
    return _count(question, lambda day: day.weekday() < 5)


def _count(question: str, wanted: Callable[[date], bool]) -> set[str]:
    dates = _dates(question)
    if dates is None or len(dates) != 2 or dates[0] > dates[1]:
        return set()
    start, end = dates
    days = [start + timedelta(n) for n in range((end - start).days + 1)]
    return {str(sum(map(wanted, days)))}


def _offset(question: str) -> set[str]:
    dates, days = _dates(question), int(_OFFSET.findall(question)[0])
    if not dates:
        return set()
    sign = -1 if _BACKWARD.search(question) else 1
    return {_weekday(dates[0] + sign * timedelta(days))}


def _of_slashed(question: str) -> set[str]:
    """Month first, and day first."""
    first, second, year = map(int, _SLASHED.findall(question)[0])
    readings = {(first, second), (second, first)}
    return {_weekday(date(year, month, day)) for month, day in readings if month <= 12}


def _of_date(question: str) -> set[str]:
    dates = _dates(question)
    return {_weekday(dates[0])} if dates else set()


_READERS = (
    (_LEAP, _leap_year),
    (_FIRST_DAY, _from_first_day),
    (_COUNTED, _counted),
    (re.compile(r"business days|excluding weekends"), _business_days),
    (_ORDINAL, _recurring),
    (_OFFSET, _offset),
    (_SLASHED, _of_slashed),
    (_DATE, _of_date),
)
