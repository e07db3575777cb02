"""Python source: functions, classes and module docstrings of libraries."""

import ast
import inspect
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dcft_jax.data import Example
from experiments.tiny_documents import plain
from experiments.tiny_packages import members

MAX_CHARS, MIN_CHARS = 3000, 80
# Tests, other people's code, and data that is written as code.
_LEFT_OUT = {"test", "tests", "testing", "_vendor", "vendored", "locale", "migrations"}
_LEFT_OUT |= {"site-packages", "idlelib", "lib2to3", "encodings", "pydoc_data"}
_LEFT_OUT |= {"turtledemo", "ensurepip", "translations"}


class Unit(NamedTuple):
    """Top-level code of a module, or a method of a class that is too long.

    Attributes:
        head: `def name(arguments):`; empty for what is no function.
    """

    name: str
    text: str
    head: str = ""
    docstring: str = ""


def standard_library() -> Iterator[Unit]:
    """The units of the Python that runs this."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        name = str(path.relative_to(root))
        if _wanted(name):
            yield from module_units(name, path.read_text("utf-8", errors="replace"))


def wheel_units(path: Path) -> Iterator[Unit]:
    for name, source in members(path, ".py"):
        if _wanted(name):
            yield from module_units(name, source)


def _wanted(name: str) -> bool:
    *folders, file = name.split("/")
    is_test = file.startswith("test_") or file == "conftest.py"
    return not is_test and not _LEFT_OUT.intersection(folders)


def code(units: Iterator[Unit], source: str) -> Iterator[Example]:
    for unit in units:
        if len(unit.text) >= MIN_CHARS and unit.text.isascii():
            yield plain(unit.text, source, unit.name)


def module_units(name: str, source: str) -> Iterator[Unit]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # a template, or of another Python
    lines = source.splitlines()
    if docstring := ast.get_docstring(tree):
        yield Unit(f"{name} docstring", _cut(docstring))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield _function(f"{name} {node.name}", node, lines)
        elif isinstance(node, ast.ClassDef):
            yield from _class(f"{name} {node.name}", node, lines)


def _class(name: str, node: ast.ClassDef, lines: list[str]) -> Iterator[Unit]:
    text = _source(node, lines)
    if len(text) <= MAX_CHARS:
        yield Unit(name, text)
        return
    if docstring := ast.get_docstring(node):
        yield Unit(f"{name} docstring", _cut(f"class {node.name}:\n{docstring}"))
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield _function(f"{name}.{child.name}", child, lines)


def _function(
    name: str, node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]
) -> Unit:
    docstring = ast.get_docstring(node) or ""
    head = f"def {node.name}({ast.unparse(node.args)}):"
    return Unit(name, _cut(_source(node, lines)), head, docstring)


def _source(node: ast.stmt, lines: list[str]) -> str:
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(d.lineno for d in decorators)])
    return inspect.cleandoc("\n" + "\n".join(lines[first - 1 : node.end_lineno]))


def _cut(text: str) -> str:
    """Whole lines, up to the limit."""
    if len(text) <= MAX_CHARS:
        return text
    return text[:MAX_CHARS].rpartition("\n")[0]
