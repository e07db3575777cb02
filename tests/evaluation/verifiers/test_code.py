"""Programs made of replies, run here because the replies are ours."""

import pytest

from dcft_jax.evaluation.verifiers.code import (
    MAX_CHARS,
    Program,
    asserts_program,
    complete_code,
    doctests_program,
    extract_code,
    humaneval_program,
    mbpp_program,
    syntax_error,
)

PROMPT = '''import math

def half(x):
    return x / 2

def area(r: float) -> float:
    """Area of a circle.

    >>> area(0)
    0.0
    """
'''
CHECK = "def check(candidate):\n    assert abs(candidate(2) - 12.566) < 1e-3\n"
BODY = "    return math.pi * r * r\n"


def _passes(program: Program) -> bool:
    names: dict = {"__name__": "program"}
    try:
        exec(program.code, names)
        exec(program.tests, names)
    except (Exception, SystemExit):
        return False
    return True


GOOD = {
    "body": BODY,
    "body without indentation": "return math.pi * r * r",
    "lines without indentation": "s = r * r\nif s:\n    s = s + 0\nreturn math.pi * s",
    "first line without indentation": "s = r * r\n    return math.pi * s",
    "block after the first line": "if r:\n        return 4 * math.pi\n    return 0",
    "fenced body": f"Sure:\n```python\n{BODY}```\nIt multiplies.",
    "whole function": f"def area(r):\n{BODY}",
    "whole function, fenced": f"```python\nimport math\ndef area(r):\n{BODY}```",
    "uses a helper of the prompt": "def area(r):\n    return half(2 * math.pi * r * r)",
    "not closed": f"```py\ndef area(r):\n{BODY}",
    "text follows": f"{BODY}\nThis function isn't hard.",
    "windows lines": f"```python\r\ndef area(r):\r\n{BODY}\r\n```",
    "longer fence": f"````python\ndef area(r):\n{BODY}````",
    "other language first": f"```bash\nls\n```\n```python\ndef area(r):\n{BODY}```",
}


@pytest.mark.parametrize("reply", GOOD.values(), ids=GOOD)
def test_good_replies_pass(reply: str):
    program = humaneval_program(PROMPT, reply, CHECK, "area")
    assert syntax_error(program.code) is None
    assert _passes(program)


@pytest.mark.parametrize(
    "reply", ["    return r\n", "", "no idea", "def check(c): pass\n    return 0"]
)
def test_bad_replies_fail(reply: str):
    assert not _passes(humaneval_program(PROMPT, reply, CHECK, "area"))


def test_humaneval_wants_a_name():
    with pytest.raises(ValueError, match="entry_point='a b'"):
        humaneval_program(PROMPT, BODY, CHECK, "a b")


def test_the_first_python_block_is_taken():
    reply = "```python\na = 1\n```\nand\n```python\na = 2\n```"
    assert extract_code(reply) == "a = 1\n"
    assert extract_code("```\na = 3\n```") == "a = 3\n"
    assert extract_code("  ```python\n  a = 4\n  ```") == "a = 4\n"
    assert extract_code("a = 5") == "a = 5"
    assert len(extract_code("x" * (MAX_CHARS + 5))) == MAX_CHARS


def test_extraction_of_hostile_text_is_fast():
    for text in ("`" * MAX_CHARS, "```\n" * (MAX_CHARS // 4), " " * MAX_CHARS + "`"):
        assert len(extract_code(text)) <= MAX_CHARS


@pytest.mark.parametrize(
    "code", ["def f(:", "a = 'x", "\0", "(" * 5000, "x = '\ud800'", "  a\n b"]
)
def test_syntax_errors(code: str):
    error = syntax_error(code)
    assert error
    assert "\n" not in error


def test_valid_syntax():
    assert syntax_error("def f():\n    return '\\d'") is None
    assert syntax_error("") is None


def test_mbpp_setup_wins_over_the_reply():
    tests = ["assert add(1, 2) == right"]
    reply = "def add(a, b): return a + b\nright = None"
    assert _passes(mbpp_program(reply, tests, setup="right = 3\r\n"))
    assert not _passes(mbpp_program(reply, tests))
    assert not _passes(mbpp_program("def add(a, b): return a", tests, "right = 3"))


def test_no_tests_is_an_error():
    for tests in ([], "assert True"):
        with pytest.raises(ValueError, match="asserts="):
            asserts_program("a = 1", tests)
    with pytest.raises(ValueError, match="docstring"):
        doctests_program("a = 1", "no example here")


def test_doctests():
    doc = "Doubles.\n\n    >>> double(2)\n    4\n    >>> double('a')\n    'aa'\n"
    assert _passes(doctests_program("def double(x): return x + x", doc))
    assert not _passes(doctests_program("def double(x): return 4", doc))
    skipped = ">>> double(2) # doctest: +SKIP\n5\n"
    assert not _passes(doctests_program("def double(x): return x + x", skipped))


def test_completion_without_a_function_is_appended():
    assert complete_code("x = 1\n", "y = x") == "x = 1\ny = x"
