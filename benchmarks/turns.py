"""Timing sides that take turns in one process, and tables of their ratios."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

Name = TypeVar("Name", bound=Hashable)
Step = Callable[[], Any]  # takes one whole step and waits for it
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def take_turns(
    sides: Mapping[Name, Step], rounds: int, clock: str = "wall"
) -> dict[Name, list[float]]:
    """Seconds of every side in every round; who begins changes.

    A turn is two steps, of which the second is timed: the first finds caches, memory
    and threads as the side before left them, not as a step of a longer run does.
    """
    for step in sides.values():  # compiles
        step()
    now = CLOCKS[clock]
    names = list(sides)
    seconds: dict[Name, list[float]] = {name: [] for name in names}
    for r in range(rounds):
        for name in names[r % len(names) :] + names[: r % len(names)]:
            sides[name]()
            started = now()
            sides[name]()
            seconds[name].append(now() - started)
    return seconds


def ratios(numerator: list[float], denominator: list[float]) -> str:
    """Median (lowest to highest) of the ratios, round by round."""
    r = [a / b for a, b in zip(numerator, denominator, strict=True)]
    return f"{statistics.median(r):.2f} ({min(r):.2f} to {max(r):.2f})"


def markdown(header: list[str], table: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
