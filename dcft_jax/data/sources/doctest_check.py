"""Runs functions against their tests, each in a process of its own.

Imported, it gives `verified`. Run as a script, by an isolated Python that sees only
the standard library, it reads functions from standard input and writes which are good.
It is for code of installed packages: limits on time and memory are all that
contains it.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
from typing import Any

CPU_SECONDS = 2
MEMORY_BYTES = 2**28


def verified(functions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The functions that pass their tests while stubs in their place fail them.

    Raises:
        RuntimeError: if the process that checks them does not finish.
    """
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-B", __file__],
        input=json.dumps(functions),
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
        env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
        timeout=60 + 15 * CPU_SECONDS * len(functions),
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"checking library functions failed: {result.stderr}")
    return [functions[index] for index in json.loads(result.stdout)]


def _is_good(function: dict[str, Any]) -> bool:
    stubs = ("pass", f"return {function['first_argument']}")
    return _passes(function, function["body"]) and not any(
        _passes(function, stub) for stub in stubs
    )


def _passes(function: dict[str, Any], body: str) -> bool:
    """Whether the tests hold in a child process, which may take CPU_SECONDS."""
    body = textwrap.indent(body, "    ")
    program = "\n".join([function["prompt"], body, *function["tests"]])
    child = os.fork()
    if child == 0:
        # The child must not outlive this block, whatever the program does.
        try:
            _limit()
            exec(compile(program, "function", "exec"), {"__name__": "function"})
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _limit() -> None:
    # Far above the limit on CPU time: a busy machine must not change the verdict.
    signal.alarm(15 * CPU_SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)


def main() -> None:
    functions = json.load(sys.stdin)
    good = [index for index, function in enumerate(functions) if _is_good(function)]
    with contextlib.suppress(BrokenPipeError):
        json.dump(good, sys.stdout)


if __name__ == "__main__":
    main()
