"""A job: one cell of a grid of settings, methods and seeds, and where its run is."""

import ast
import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import dcft_jax
from dcft_jax.config import config_hash, from_plain, to_plain, validate
from dcft_jax.training.run import PACKAGES

# What may change without changing a number of a run.
_PRESENTATION = ("reporting", "report.py", "main.py")
_GENERATORS = ("reasoning-gym",)  # packages that make training data


@dataclass(frozen=True, eq=False)
class Job:
    """One run of the trainer.

    Two jobs whose configs describe the same computation share one run, whatever they
    are called: a grid may contain a mixture that is a method of its own.

    Attributes:
      config: plain and resolved; its `run.seed` is `seed`.
      after: jobs that must have finished first, because the config names a file of
        their runs. What they cost is charged to this job too.
    """

    setting: str
    method: str
    seed: int
    config: Mapping[str, Any]
    after: tuple["Job", ...] = ()

    @property
    def name(self) -> str:
        return f"{self.setting} / {self.method} / seed {self.seed}"

    @property
    def config_hash(self) -> str:
        return config_hash(self.config)

    def workdir(self, runs: Path) -> Path:
        """Named by what is computed: another config or other code, another folder."""
        return runs / f"{self.config_hash}-{code_version()}"


def make_job(
    setting: str,
    method: str,
    seed: int,
    config: ConfigDict,
    after: tuple[Job, ...] = (),
) -> Job:
    """A job with a copy of the config, checked unless it has to wait for others.

    Raises:
      ValueError: the trainer would refuse the config.
    """
    config = from_plain(to_plain(config))
    config.run.seed = seed
    if not after:  # else it names files that are not there yet
        validate(config)
    return Job(setting, method, seed, to_plain(config), after)


@cache
def code_version() -> str:
    """Eight hex digits of the code that computes, and of the libraries under it.

    Comments, docstrings and formatting do not count, nor does what only shows results:
    tidying up does not make a finished sweep run again.
    """
    root = Path(dcft_jax.__file__).parent
    digest = hashlib.blake2b(platform.python_version().encode(), digest_size=4)
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.parts[0] not in _PRESENTATION:
            digest.update(relative.as_posix().encode())
            digest.update(_syntax(path.read_text(encoding="utf-8")).encode())
    for package in (*PACKAGES, *_GENERATORS):
        digest.update(f"{package}={_version(package)}".encode())
    return digest.hexdigest()


def _syntax(source: str) -> str:
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
