"""Programs to run from a model's reply and the tests of its problem.

Nothing here runs anything: a `Program` is two strings, for a sandbox.
"""

import ast
import re
import textwrap
import warnings
from collections.abc import Sequence
from typing import NamedTuple

MAX_CHARS = 65_536  # of a reply; what is beyond is cut off
_FENCE = re.compile(
    r"^(?P<indent>[ \t]*)(?P<marks>`{3,})[ \t]*(?P<language>[\w+-]*)[^\n`]*\n"
    r"(?P<code>.*?)(?:^[ \t]*(?P=marks)`*[ \t]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
_PYTHON = ("python", "python3", "py", "")


class Program(NamedTuple):
    """`tests` run after `code`, in the same namespace, and raise if it is wrong."""

    code: str
    tests: str


def syntax_error(code: str) -> str | None:
    """Why `code` is not Python, in one line, or None. It is parsed, not compiled."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes and the like
            ast.parse(code)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, MemoryError, RecursionError) as error:
        # NUL bytes and lone surrogates; nesting too deep for the parser.
        return f"{type(error).__name__}: {error}"
    return None


def extract_code(reply: str) -> str:
    """The code in a reply: its first Python block between fences, else all of it.

    A block that names another language counts only if there is no other. One that is
    not closed goes on to the end. At most `MAX_CHARS` of the reply are read.
    """
    reply = reply[:MAX_CHARS].replace("\r\n", "\n")
    blocks = list(_FENCE.finditer(reply))
    if not blocks:
        return reply
    python = [b for b in blocks if b["language"].lower() in _PYTHON]
    block = (python or blocks)[0]
    lines = block["code"].splitlines(keepends=True)
    return "".join(line.removeprefix(block["indent"]) for line in lines)


def complete_code(prompt: str, reply: str) -> str:
    """The program that a reply makes of a prompt that ends in a function's head.

    A reply that defines the prompt's last function itself stands for it: it follows
    what comes before that function in the prompt, imports and helpers. Any other
    reply is the body; it is indented if it is not. Text after the body, which models
    write when nothing stops them, is cut off where it is not Python.
    """
    code = extract_code(reply)
    prompt = prompt.replace("\r\n", "\n")
    heads = list(re.finditer(r"^(?:async +)?def +(\w+)", prompt, re.MULTILINE))
    if not heads:
        return prompt + code
    name = re.escape(heads[-1][1])
    if re.search(rf"^(?:async +)?def +{name}\b", code, re.MULTILINE):
        return f"{prompt[: heads[-1].start()]}\n{code}"
    prompt = prompt.rstrip(" \t").removesuffix("\n") + "\n"
    if next((line[0] for line in code.split("\n") if line.strip()), " ").isspace():
        bodies = [code]
    else:
        # All indentation is missing, or that of the first line.
        bodies = [textwrap.indent(code, "    "), f"    {code}"]
    tries = [prompt + text for body in bodies for text in (body, _inside(body))]
    return next((t for t in tries if syntax_error(t) is None), tries[0])


def _inside(body: str) -> str:
    """A body up to the first line, but for its first, that is not indented."""
    lines = body.split("\n")
    outside = (n for n, line in enumerate(lines) if n and line[:1].strip())
    return "\n".join(lines[: next(outside, len(lines))]) + "\n"


def humaneval_program(prompt: str, reply: str, test: str, entry_point: str) -> Program:
    """A problem of HumanEval (Chen et al. 2021, arXiv:2107.03374).

    `test` defines `check(candidate)`.

    Raises:
        ValueError: if `entry_point` is not a name.
    """
    if not entry_point.isidentifier():
        raise ValueError(f"entry_point={entry_point!r} must be a Python name")
    test = test.replace("\r\n", "\n")
    return Program(complete_code(prompt, reply), f"{test}\ncheck({entry_point})\n")


def mbpp_program(reply: str, test_list: Sequence[str], setup: str = "") -> Program:
    """A problem of MBPP (Austin et al. 2021, arXiv:2108.07732).

    `setup`, the problem's `test_setup_code`, runs after the reply, which then cannot
    replace what it defines.

    Raises:
        ValueError: if `test_list` is empty.
    """
    tests = asserts_program(reply, test_list)
    setup = setup.replace("\r\n", "\n")
    return Program(tests.code, f"{setup}\n{tests.tests}" if setup else tests.tests)


def asserts_program(reply: str, asserts: Sequence[str]) -> Program:
    """A reply with assert statements, one source text each.

    Raises:
        ValueError: if there are none: everything would pass.
    """
    if isinstance(asserts, str) or not asserts:
        raise ValueError(
            f"asserts={asserts!r}: must be at least one statement, in a list"
        )
    tests = "\n".join(text.replace("\r\n", "\n") for text in asserts)
    return Program(extract_code(reply), f"{tests}\n")


_DOCTESTS = """\
import doctest as _doctest
_test = _doctest.DocTestParser().get_doctest({text!r}, globals(), "reply", None, 0)
_results = _doctest.DocTestRunner(verbose=False).run(_test, clear_globs=False)
assert _results.attempted > 0, "no example was run"
assert _results.failed == 0, f"{{_results.failed}} of {{_results.attempted}} examples"
"""


def doctests_program(reply: str, docstring: str) -> Program:
    """A reply with the interactive examples (`>>>`) of a docstring.

    Raises:
        ValueError: if the docstring has no example: everything would pass.
    """
    if not re.search(r"^\s*>>> +\S", docstring, re.MULTILINE):
        raise ValueError("docstring: must have an example (a line with `>>> `)")
    return Program(extract_code(reply), _DOCTESTS.format(text=docstring))
