import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from dcft_jax.data.example import prompt_key
from dcft_jax.data.sources import doctest_check, doctest_functions, library_functions
from dcft_jax.data.sources.code import complete_function
from dcft_jax.data.sources.micro_functions import micro_function, micro_functions
from dcft_jax.data.sources.micro_templates import FAMILIES


def _passes(example, body) -> bool:
    """Runs our own reference code and asserts, never the output of a model."""
    names = {}
    exec(complete_function(example.prompt[-1][1], body), names)
    try:
        for test in example.tests:
            exec(test, names)
    except AssertionError:
        return False
    return True


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**60))
def test_a_reference_passes_its_asserts_and_stubs_do_not(index):
    example = micro_function(index)
    prompt = example.prompt[-1][1]
    (arguments,) = re.findall(r"def f\((.*)\):", prompt)
    stubs = ["pass", "return 0", "return True", "return False", "return []"]
    assert len(example.tests) >= 3
    assert _passes(example, example.reply)
    for stub in [*stubs, *(f"return {name}" for name in arguments.split(", "))]:
        assert not _passes(example, stub), stub


def test_every_template_is_right_and_has_room_for_held_out_prompts():
    prompts = {}
    for index in range(20_000):
        example = micro_function(index)
        template = prompts.setdefault(example.metadata["template"], {})
        template.setdefault(prompt_key(example), example)
    assert len(prompts) == sum(len(family.templates) for family in FAMILIES)
    assert min(map(len, prompts.values())) > 200
    assert sum(map(len, prompts.values())) > 15_000
    for template in prompts.values():
        assert all(_passes(e, e.reply) for e in list(template.values())[:5])


def test_micro_functions_are_the_same_every_time():
    source = ConfigDict(dict(kind="micro_functions", examples=50))
    first, again = (micro_functions(source, held_out=10, seed=3) for _ in range(2))
    assert first == again
    assert {split: len(rows) for split, rows in first.splits.items()} == {
        "train": 50,
        "mix_val": 10,
        "test": 10,
    }


def test_bodies_of_several_lines_keep_their_relative_indentation():
    body = "if n:\n    return 1\nreturn 2"
    expected = "def f(n):\n    if n:\n        return 1\n    return 2\n"
    assert complete_function("def f(n):", body) == expected


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    source = ConfigDict(
        dict(kind="doctest_functions", packages=("inflection",), cache_dir=str(folder))
    )
    return source, doctest_functions.doctest_functions(source, held_out=1, seed=0)


def test_library_functions_pass_their_doctests_and_stubs_do_not(library):
    examples = library[1].splits["all"]
    assert len(examples) >= 5
    for example in examples:
        assert example.tests
        assert example.metadata["licence"].startswith("MIT")
        assert ">>>" not in example.prompt[-1][1]
        assert "import inflection" not in example.prompt[-1][1]
        assert _passes(example, example.reply)
        assert not _passes(example, "return None")


def test_a_second_start_reads_the_cache(library, monkeypatch):
    source, data = library

    def fail(_):
        raise AssertionError("checked again")

    monkeypatch.setattr(doctest_check, "verified", fail)
    assert doctest_functions.doctest_functions(source, held_out=1, seed=0) == data


def test_max_chars_bounds_prompt_and_reply(library):
    source = ConfigDict({**library[0].to_dict(), "max_chars": 400})
    examples = doctest_functions.doctest_functions(source, held_out=1, seed=0)
    lengths = [len(e.prompt[-1][1]) + len(e.reply) for e in examples.splits["all"]]
    assert 0 < len(lengths) < len(library[1].splits["all"])
    assert max(lengths) <= 400
    source.max_chars = 1
    with pytest.raises(ValueError, match="max_chars"):
        doctest_functions.doctest_functions(source, held_out=1, seed=0)


def test_a_missing_package_is_named(tmp_path):
    source = ConfigDict(
        dict(kind="doctest_functions", packages=("no_such",), cache_dir=str(tmp_path))
    )
    with pytest.raises(ValueError, match="'no_such' is not installed"):
        doctest_functions.doctest_functions(source, held_out=1, seed=0)


def _function(name, body, tests, first_argument="x"):
    return {
        "prompt": f"def {name}(x):\n    '''Text.'''",
        "body": body,
        "tests": tests,
        "first_argument": first_argument,
    }


def test_only_functions_that_their_tests_tell_from_stubs_are_verified():
    good = _function("good", "return x + 1", ["assert good(1) == 2"])
    bad = [
        _function("wrong", "return x", ["assert wrong(1) == 2"]),
        _function("vacuous", "return x", ["assert True"]),
        _function("echo", "return x", ["assert echo(1) == 1"]),
        _function("endless", "while True: pass", ["assert endless(1) == 2"]),
        _function("huge", "return len([x] * 2**40)", ["assert huge(1) == 2**40"]),
        _function("leaves", "import os; os._exit(1)", ["assert leaves(1) == 2"]),
        _function("package", "import toolz; return 2", ["assert package(1) == 2"]),
        _function("no_syntax", "return (", ["assert no_syntax(1) == 2"]),
    ]
    assert doctest_check.verified([*bad, good]) == [good]


MODULE = '''
import re
import other
from math import sqrt as root

SCALE = 2

def _twice(x: int) -> int:
    """Helps."""
    return x * SCALE

def uses_helper(x: other.Type, y=1) -> int:
    """Doubles a number, and takes a root.

    Example:

        >>> uses_helper(8)
        4.0
    """
    # A comment.
    return root(_twice(x))

def uses_package(x):
    """Needs another package.

    >>> uses_package(1)
    1
    """
    return other.f(x)

def no_examples(x):
    """Nothing to test."""
    return x

@other.wrap
def decorated(x):
    """
    Text.

    >>> decorated(1)
    1
    """
    return x
'''


def test_candidates_carry_what_they_need_and_nothing_from_elsewhere(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    (found,) = library_functions._module_functions(path, "module")
    assert found["prompt"] == (
        "from math import sqrt as root\n"
        "SCALE = 2\n"
        "def _twice(x):\n"
        "    return x * SCALE\n"
        "def uses_helper(x, y=1):\n"
        '    """Doubles a number, and takes a root."""'
    )
    assert found["body"] == "return root(_twice(x))"
    assert found["tests"] == ["assert uses_helper(8) == 4.0"]
    assert doctest_check.verified([found]) == [found]
