"""Functions of installed libraries whose documented examples were seen to hold."""

import hashlib
import inspect
import json
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import track

from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.data.example import Example, SourceData
from dcft_jax.data.sources import doctest_check, library_functions
from dcft_jax.data.sources.code import function_example
from dcft_jax.data.sources.fields import source_fields

PACKAGES = ("more_itertools", "toolz", "boltons", "pydash", "inflection")


def doctest_functions(
    source: ConfigDict, *, held_out: int, seed: int, on_bad_row: str = "fail"
) -> SourceData:
    """Library functions to write from their signature and docstring.

    The examples of the docstring are not in the prompt; they are the hidden tests. A
    function is kept if, without its package, it passes them and stubs do not. The check
    runs code of the packages in separate processes, once per version of a package.

    Fields of `source`: `packages`, names to import; `max_chars`, the most characters
    of prompt and reply together; `cache_dir`, where checked functions are kept.

    Raises:
        ValueError: if a package is not installed or no function is short enough.
    """
    fields = source_fields(
        source, packages=PACKAGES, max_chars=1200, cache_dir=".cache/dcft"
    )
    folder = Path(fields.cache_dir) / "doctest_functions"
    caches = {name: _cache_path(folder, name) for name in fields.packages}
    _fill(caches)
    examples = [
        _example(function)
        for path in caches.values()
        for function in json.loads(path.read_text(encoding="utf-8"))
        if len(function["prompt"]) + len(function["body"]) <= fields.max_chars
    ]
    if not examples:
        raise ValueError(
            f"no function of {', '.join(caches)} has at most {fields.max_chars} "
            "characters; raise `max_chars`"
        )
    return SourceData({"all": examples})


def _cache_path(folder: Path, package: str) -> Path:
    """A name that changes with the package, the Python version and this code."""
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise ValueError(
            f"package {package!r} is not installed; install it or leave it out of "
            "`packages`"
        ) from error
    digest = hashlib.blake2b(sys.version.encode(), digest_size=8)
    for module in (doctest_check, library_functions):
        digest.update(inspect.getsource(module).encode())
    return folder / f"{package}-{version}-{digest.hexdigest()}.json"


def _fill(caches: dict[str, Path]) -> None:
    """Checks the packages that have no cache yet."""
    missing = [package for package, path in caches.items() if not path.exists()]
    for package in _progress(missing):
        functions = doctest_check.verified(library_functions.candidates(package))
        licence = _licence(package)
        rows = [{**function, "licence": licence} for function in functions]
        atomic_write(caches[package], json.dumps(rows, indent=1))


def _progress(packages: list[str]) -> Iterable[str]:
    if not packages:
        return packages
    console = Console(stderr=True)
    return track(packages, "Checking library functions", console=console)


def _licence(package: str) -> str:
    info = metadata.metadata(package)
    classifiers = info.get_all("Classifier") or []
    named = [c.rsplit(" :: ", 1)[-1] for c in classifiers if c.startswith("License")]
    expressions = info.get_all("License-Expression") or []
    return next(iter([*expressions, *named]), "unknown")


def _example(function: dict[str, Any]) -> Example:
    return function_example(
        function["prompt"],
        function["body"],
        source="doctest_functions",
        tests=tuple(function["tests"]),
        single_reference=False,
        metadata={key: function[key] for key in ("entry_point", "package", "licence")},
    )
