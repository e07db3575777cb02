"""The text of a compiled program: its computations, and how often each of them runs."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_LINE = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_CALLS = re.compile(
    r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count"?:\{"n":"(\d+)"\}')
_LIMIT = re.compile(r"compare\(%?[\w.\-]+, %?([\w.\-]+)\), direction=LT")


class Instruction(NamedTuple):
    name: str
    result: str  # its type, as text
    opcode: str
    rest: str  # operands and attributes


Program = Mapping[str, Sequence[Instruction]]


def parse(text: str) -> tuple[Program, str]:
    """Computations by name, and the name of the one that is run."""
    program: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if (head := _HEAD.match(line)) and not line.startswith((" ", "HloModule")):
            current = program.setdefault(head.group(2), [])
            entry = head.group(2) if head.group(1) else entry
        elif current is not None and (found := _LINE.match(line)):
            current.append(Instruction(*found.groups()))
    if not entry:
        raise ValueError("the text of the compiled program has no ENTRY computation")
    return program, entry


def runs(program: Program, entry: str) -> tuple[Counter[str], set[str]]:
    """How often each computation runs, and which are in a loop of unknown length.

    The latter count as if the loop ran once. Of the branches of a condition each counts
    as if it were taken.
    """
    times: Counter[str] = Counter()
    unknown: set[str] = set()

    def visit(name: str, factor: int, certain: bool) -> None:
        times[name] += factor
        if not certain:
            unknown.add(name)
        for instruction in program.get(name, ()):
            inside, known = factor, certain
            if instruction.opcode == "while":
                trips = trip_count(program, instruction)
                inside, known = factor * (trips or 1), certain and trips is not None
            for called in _called(instruction):
                visit(called, inside, known)

    visit(entry, 1, True)
    return times, unknown


def trip_count(program: Program, loop: Instruction) -> int | None:
    """From what the compiler knows, or a condition `i < constant` (from 0, by 1)."""
    if known := _TRIPS.search(loop.rest):
        return int(known.group(1))
    condition = _CONDITION.search(loop.rest)
    lines = program.get(condition.group(1), ()) if condition else ()
    constants = {
        line.name: int(line.rest.split(")")[0])
        for line in lines
        if line.opcode == "constant" and re.match(r"s32\[\]|u32\[\]", line.result)
    }
    if not lines or lines[-1].opcode != "compare":
        return None
    limit = _LIMIT.match(f"compare({lines[-1].rest}")
    return constants.get(limit.group(1)) if limit else None


def _called(instruction: Instruction) -> list[str]:
    if instruction.opcode.endswith(("-done", "-update")):
        return []  # what its -start called
    found = _CALLS.findall(instruction.rest)
    for branches in _BRANCHES.findall(instruction.rest):
        found += [name.strip().lstrip("%") for name in branches.split(",")]
    return found
