"""The Python that programs run in: this one, without its installed packages."""

import functools
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

# Isolated like `-I`, but for `-E`: the environment holds only what is set here, and
# PYTHONHASHSEED must be heard, or the order of sets differs from run to run.
FLAGS = ("-s", "-P", "-S", "-B")
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "OMP_NUM_THREADS": "1",
    "PATH": "/usr/bin:/bin",
}
_TOP_LEVEL = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


class View(NamedTuple):
    """The part of the file system that an interpreter needs, all of it read-only."""

    folders: tuple[str, ...]
    links: tuple[tuple[str, str], ...]  # path, target
    parents: tuple[str, ...]  # folders to make above `folders`, outermost first


def command() -> list[str]:
    """The interpreter, about to run the harness."""
    harness = Path(__file__).with_name("harness.py")
    return [_executable(), *FLAGS, "-c", harness.read_text(encoding="utf-8")]


def _executable() -> str:
    # Not that of a virtual environment, which only points to it.
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


@functools.cache
def view() -> View:
    """/usr with the folders or links beside it, and what Python has elsewhere."""
    top = [Path("/", name) for name in _TOP_LEVEL]
    links = tuple((str(p), os.readlink(p)) for p in top if p.is_symlink())
    own = ["/usr", *(str(p) for p in top if p.is_dir() and not p.is_symlink())]
    prefixes = [sys.base_prefix, sys.base_exec_prefix, os.path.dirname(_executable())]
    elsewhere: list[str] = []
    for folder in [os.path.realpath(p) for p in prefixes] + _library_folders():
        if not _is_below(folder, [*own, *elsewhere]):
            elsewhere.append(folder)
    parents = {str(p) for folder in elsewhere for p in Path(folder).parents}
    return View(
        tuple(own + elsewhere), links, tuple(sorted(parents - {"/", *own}, key=len))
    )


def _is_below(folder: str, others: list[str]) -> bool:
    return any(Path(folder).is_relative_to(other) for other in others)


def _library_folders() -> list[str]:
    """Where the shared libraries of the interpreter and its modules are."""
    modules = sysconfig.get_path("platstdlib")
    files = [_executable(), *map(str, Path(modules, "lib-dynload").glob("*.so"))]
    try:
        listed = subprocess.run(
            ["ldd", *files],
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            timeout=60,
            check=False,  # a statically linked file makes it fail
        ).stdout
    except FileNotFoundError:  # not glibc: the probe tells whether it matters
        return []
    # The libraries beside /usr are links into it or folders of the view already.
    found = {os.path.dirname(p) for p in re.findall(r"=> (/\S+) \(0x", listed)}
    return sorted({os.path.realpath(folder) for folder in found})
