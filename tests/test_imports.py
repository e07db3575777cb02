"""The arrows between rooms: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dcft_jax"

# room -> what else of the package it may import. A room may import itself.
ALLOWED = {
    "sharding": set(),
    "distributed": set(),
    "conflict": set(),
    "mixture": set(),
    "data": set(),
    "models": {"data", "sharding"},
    "evaluation": {"data", "models", "sharding"},
    "meta": {
        *("conflict", "data", "evaluation", "mixture", "models", "reporting"),
        "sharding",
    },
    "reporting": {"evaluation"},
    "config": {"conflict", "data", "evaluation", "meta", "mixture", "models"},
    "evaluate": {
        *("config", "data", "distributed", "evaluation", "models", "reporting"),
        *("sharding", "training"),
    },
    "lm_eval": {
        *("data", "distributed", "evaluation", "models", "sharding", "training"),
    },
    "report": {"reporting"},
    "export": {"distributed", "training"},
    "generate": {"data", "distributed", "models", "training"},
    "planning": {"config", "data", "models", "sharding", "training"},
    "plan": {"planning", "sharding"},
    "main": {"distributed", "planning", "sharding", "training"},
}
COMMANDS = {"meta": {"training"}}
STEP = {"models", "conflict", "mixture", "sharding", "training"}


def _imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, as dotted names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.startswith("dcft_jax.")}


def _rooms(path: Path) -> set[str]:
    return {name.split(".")[1] for name in _imported(path)}


def _files(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


@pytest.mark.parametrize("room", ALLOWED)
def test_room_imports_only_what_it_may(room: str):
    files = _files(room)
    assert files
    for path in files:
        # A command may import what nobody in its room may.
        more = COMMANDS.get(room, set()) if path.name == "__main__.py" else set()
        assert _rooms(path) <= ALLOWED[room] | {room} | more, path


def test_every_room_is_listed():
    names = {path.stem for path in PACKAGE.iterdir() if path.stem[0] not in "_."}
    assert names - {"py", "training"} <= ALLOWED.keys()


def test_verifiers_import_nothing_else_of_the_package():
    # They judge what a model wrote; they must be usable without any of the rest.
    files = _files("evaluation/verifiers")
    assert files
    for path in files:
        imported = _imported(path)
        own = {n for n in imported if n.startswith("dcft_jax.evaluation.verifiers")}
        assert imported == own, path


def test_step_imports_only_the_science():
    assert _rooms(PACKAGE / "training" / "step.py") <= STEP


def test_nobody_imports_the_loop_but_the_commands():
    for path in PACKAGE.rglob("*.py"):
        if path.name != "main.py":
            imported = _imported(path)
            assert not any(n.startswith("dcft_jax.training.loop") for n in imported)


def test_no_tensorflow_or_torch():
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                roots = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                roots = {node.module.split(".")[0]}
            else:
                continue
            assert not roots & {"tensorflow", "torch", "clu", "chex"}, path
