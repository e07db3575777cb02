"""Time between two moments."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

_MOMENTS = re.compile(
    r"(?:between|elapsed from|(?:started|departed|began) at) (.+?) "
    r"(?:and (?:ended|completed|arrived) at|and|to) (.+?)[.?] "
)
_ASKED = re.compile(r"(?:[Aa]nswer in|the result in|your answer in) (.+)\.$")

_TIMES = ("%H:%M", "%H:%M:%S")
_DATES = (
    *("%Y-%m-%d", "%B %d, %Y", "%A, %B %d, %Y", "%a %b %d %Y", "%d %B %Y"),
    *("%Y-%m-%d (%A)", "%m/%d/%Y", "%d/%m/%Y"),  # both ways to write the same digits
)
_BOTH = (
    *("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M %z"),
    *("%Y-%m-%d %H:%M:%S %z", "%A, %B %d, %Y at %H:%M", "%a %b %d %Y %H:%M:%S"),
    *("%d %B %Y, %H:%M", "%d %B %Y, %H:%M %z", "%Y-%m-%d (%A) %H:%M:%S %z"),
)


def time_intervals(question: str) -> set[str]:
    """The duration as the question wants it written, for every way to read the dates.

    None where the end is before the start. Seconds that are not asked for may be cut
    or rounded.
    """
    moments, asked = _MOMENTS.search(question), _ASKED.search(question)
    if moments is None or asked is None:
        return set()
    durations = set(_durations(moments[1], moments[2]))
    if not durations or min(durations) < timedelta(0):
        return set()
    return {text for d in durations for text in _written(d, asked[1])}


def _durations(start: str, end: str) -> Iterator[timedelta]:
    for form in (*_TIMES, *_DATES, *_BOTH):
        try:
            yield datetime.strptime(end, form) - datetime.strptime(start, form)
        except ValueError:
            continue  # is written in another form


def _written(duration: timedelta, form: str) -> set[str]:
    seconds = duration.days * 86_400 + duration.seconds
    if form.endswith("SS"):
        return {_write(seconds, form)}
    return {_write(seconds, form), _write((seconds + 30) // 60 * 60, form)}


def _write(seconds: int, form: str) -> str:
    days, rest = divmod(seconds, 86_400)
    if form == "D days":
        return f"{days} days"
    clock = f"{rest // 3600:02d}:{rest // 60 % 60:02d}"
    if form.endswith("SS"):
        clock += f":{rest % 60:02d}"
    return f"{days} days, {clock}" if form.startswith("D") else clock
