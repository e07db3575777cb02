"""What a Brainf*ck program prints."""

import re

# The generator's programs take a few hundred steps.
MAX_STEPS = 100_000
_CELLS = 30_000
_PROGRAM = re.compile(r"^[-+<>.\[\]]+$", re.MULTILINE)


def bf(question: str) -> set[str]:
    """None, if the program asks for input, leaves its memory or does not end."""
    program = _PROGRAM.search(question)
    output = None if program is None else run(program[0])
    return set() if output is None else {output}


def run(program: str) -> str | None:
    """Output of a program without input; cells are bytes that wrap around."""
    jumps = _jumps(program)
    if jumps is None:
        return None
    cells, output, here, cell = [0] * _CELLS, [], 0, 0
    for _ in range(MAX_STEPS):
        if here == len(program):
            return "".join(output)
        match program[here]:
            case "+":
                cells[cell] = (cells[cell] + 1) % 256
            case "-":
                cells[cell] = (cells[cell] - 1) % 256
            case ">":
                cell += 1
            case "<":
                cell -= 1
            case ".":
                output.append(chr(cells[cell]))
            case "[":
                here = here if cells[cell] else jumps[here]
            case "]":
                here = jumps[here] if cells[cell] else here
        if not 0 <= cell < _CELLS:
            return None
        here += 1
    return None


def _jumps(program: str) -> dict[int, int] | None:
    """Each bracket -> its partner."""
    jumps, opened = {}, []
    for here, sign in enumerate(program):
        if sign == "[":
            opened.append(here)
        elif sign == "]":
            if not opened:
                return None
            jumps[here] = opened.pop()
            jumps[jumps[here]] = here
    return None if opened else jumps
