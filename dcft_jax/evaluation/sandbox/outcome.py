"""What became of one program."""

from typing import Literal, NamedTuple

Status = Literal["passed", "failed", "timeout", "not run"]


class Outcome(NamedTuple):
    """`seconds` of wall clock, without the start of the sandbox."""

    status: Status
    error: str  # one line; empty when the program passed
    seconds: float
