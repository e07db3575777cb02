"""The command line, as users type it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "dcft_jax.main", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "config"),
        (("--config.run.num_step=5",), "num_step"),
        (("--config.run.num_steps=many",), "num_steps"),
        (("--config.run.num_steps=0",), "config.run.num_steps = 0: must be at least 1"),
        (("--config.mixture.rule=magic",), "must be one of static, proportional"),
        (("extra",), "unexpected arguments: extra"),
    ],
)
def test_mistakes_end_with_a_message(tmp_path: Path, arguments, message):
    config = ("--config", "configs/quickstart.py") if arguments else ()
    result = run(*config, "--workdir", str(tmp_path / "run"), *arguments)
    assert result.returncode != 0
    assert message in result.stderr + result.stdout


@pytest.mark.slow
def test_user_errors_come_without_a_traceback(tmp_path: Path):
    field = "config.mixture.options.mirror_descent"
    config = ("--config", "configs/quickstart.py", f"--{field}.floor=2.0")
    result = run(*config, "--workdir", str(tmp_path / "run"))
    assert result.returncode == 1
    assert f"error: {field} = " in result.stderr
    assert "floor is 2.0, expected in [0, 1)" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()
