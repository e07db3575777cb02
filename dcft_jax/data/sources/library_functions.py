"""Finds functions with doctests in an installed package, by reading its source.

Nothing is imported or run here. A candidate is a top-level function with what it needs
from its own module: at most four helpers, and imports of the standard library.
"""

import ast
import builtins
import doctest
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MAX_HELPERS = 4

# Lines that only introduce the examples, which are taken out of the docstring.
_LEAD_IN = re.compile(r"\s*(for example|examples?|usage|e\.g\.)?\s*:*\s*", re.I)


def candidates(package: str) -> list[dict[str, Any]]:
    """Unchecked functions: `prompt`, `body`, `tests`, `entry_point`, `package`.

    Raises:
        ValueError: if the package cannot be found.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(f"package {package!r} has no source to read")
    origin = Path(spec.origin)
    paths = (
        sorted(origin.parent.glob("*.py")) if origin.stem == "__init__" else [origin]
    )
    return [found for path in paths for found in _module_functions(path, package)]


@dataclass
class _Module:
    """Top-level names of a module, by how a function may use them."""

    imports: dict[str, str] = field(default_factory=dict)  # standard library only
    helpers: dict[str, ast.stmt] = field(default_factory=dict)
    bound: set[str] = field(default_factory=set)  # every name, usable or not


def _module_functions(path: Path, package: str) -> Iterator[dict[str, Any]]:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    module = _read_module(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            docstring = ast.get_docstring(node) or ""
            tests = _tests(docstring, package)
            text = _description(docstring)
            body = _body(node, source)
            if not (tests and text and body):
                continue
            preamble = _preamble(node, module)
            if preamble is not None:
                yield {
                    "prompt": f"{preamble}{_head(node, text)}",
                    "body": body,
                    "tests": tests,
                    "entry_point": node.name,
                    "package": package,
                    "first_argument": _first_argument(node),
                }


def _read_module(tree: ast.Module) -> _Module:
    module = _Module()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module.bound |= {(a.asname or a.name).split(".")[0] for a in node.names}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            module.imports.update(_standard_imports(node))
        elif isinstance(node, ast.FunctionDef) and not node.decorator_list:
            module.helpers[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            module.helpers[node.targets[0].id] = node
        module.bound |= _bound_names(node)
    return module


def _standard_imports(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Name -> import statement, for modules of the standard library."""
    found = {}
    for alias in node.names:
        origin = alias.name if isinstance(node, ast.Import) else node.module or ""
        relative = isinstance(node, ast.ImportFrom) and node.level > 0
        if relative or origin.split(".")[0] not in sys.stdlib_module_names:
            continue
        single = (
            ast.Import([alias])
            if isinstance(node, ast.Import)
            else ast.ImportFrom(node.module, [alias], 0)
        )
        found[(alias.asname or alias.name).split(".")[0]] = ast.unparse(single)
    return found


def _bound_names(node: ast.AST) -> set[str]:
    """Names that a statement binds in its own scope or in one inside it."""
    names = set()
    for child in ast.walk(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            names.add(child.name)
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            names.add(child.id)
        elif isinstance(child, ast.arg):
            names.add(child.arg)
        elif isinstance(child, ast.ExceptHandler) and child.name:
            names.add(child.name)
    return names


def _used_names(node: ast.stmt) -> set[str]:
    """Names that a statement reads from outside itself, without built-in ones."""
    read = {
        child.id
        for child in ast.walk(_without_annotations(node))
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load)
    }
    return read - _bound_names(node) - set(dir(builtins))


def _preamble(node: ast.FunctionDef, module: _Module) -> str | None:
    """Source of what a function needs, None if that cannot stand on its own."""
    if node.decorator_list or node.name not in module.helpers:
        return None
    pending, imports, helpers = [node.name], set(), {}
    while pending:
        statement = module.helpers[pending.pop()]
        for name in sorted(_used_names(statement) & module.bound):
            if name in module.imports:
                imports.add(module.imports[name])
            elif name not in module.helpers or len(helpers) > MAX_HELPERS:
                return None
            elif name != node.name and name not in helpers:
                helpers[name] = module.helpers[name]
                pending.append(name)
    if len(helpers) > MAX_HELPERS:
        return None
    # In the order of the module, so that constants are defined before their use.
    ordered = sorted(helpers.values(), key=lambda statement: statement.lineno)
    parts = [*sorted(imports), *(ast.unparse(_bare(part)) for part in ordered)]
    return "".join(f"{part}\n" for part in parts)


def _without_annotations(node: Any) -> Any:
    """A copy in which no signature has types; they would need more imports."""
    copy = ast.parse(ast.unparse(node)).body[0]
    for child in ast.walk(copy):
        if isinstance(child, ast.arg):
            child.annotation = None
        elif isinstance(child, ast.FunctionDef):
            child.returns = None
    return copy


def _bare(node: ast.stmt) -> ast.stmt:
    """A helper without annotations and docstring."""
    copy = _without_annotations(node)
    if isinstance(copy, ast.FunctionDef) and ast.get_docstring(copy):
        copy.body = copy.body[1:] or [ast.Pass()]
    return copy


def _head(node: ast.FunctionDef, text: str) -> str:
    arguments = ast.unparse(_without_annotations(node).args)
    docstring = inspect.cleandoc(text).replace("\n", "\n    ")
    docstring = "\n".join(line.rstrip() for line in docstring.split("\n"))
    return f'def {node.name}({arguments}):\n    """{docstring}"""'


def _first_argument(node: ast.FunctionDef) -> str:
    arguments = [*node.args.posonlyargs, *node.args.args]
    return arguments[0].arg if arguments else "None"


def _body(node: ast.FunctionDef, source: str) -> str:
    """Source of the statements after the docstring, without outer indentation."""
    statements = node.body[1:]
    if not statements:
        return ""
    lines = source.split("\n")[statements[0].lineno - 1 : node.end_lineno]
    return inspect.cleandoc("\n" + "\n".join(lines))


def _description(docstring: str) -> str:
    """What a docstring says before its first example."""
    lines = docstring.split(">>>")[0].rstrip().split("\n")
    while lines and _LEAD_IN.fullmatch(lines[-1]):
        lines.pop()
    text = "\n".join(lines).strip()
    # Would need another kind of string literal.
    return "" if '"""' in text or "\\" in text or text.endswith('"') else text


def _tests(docstring: str, package: str) -> list[str]:
    """Statements that repeat the examples, those with a result as asserts.

    Empty if an example cannot be written so or imports the package.
    """
    try:
        examples = doctest.DocTestParser().get_examples(docstring)
        tests = [_test(example) for example in examples if not example.exc_msg]
    except (ValueError, SyntaxError):
        return []
    if any(re.search(rf"\b(import|from)\s+{package}\b", test) for test in tests):
        return []
    return tests


def _test(example: doctest.Example) -> str:
    if not example.want:
        return ast.unparse(ast.parse(example.source))
    expression = ast.unparse(ast.parse(example.source.strip(), mode="eval"))
    want = example.want.strip()
    try:
        return f"assert {expression} == {ast.literal_eval(want)!r}"
    except (ValueError, SyntaxError):
        return f"assert repr({expression}) == {want!r}"
