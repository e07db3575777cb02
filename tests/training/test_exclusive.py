"""Two processes never train in one work directory."""

import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from dcft_jax.training.exclusive import InUseError, held
from dcft_jax.training.workdir import open_workdir

HOLD = """
import sys
from pathlib import Path
from dcft_jax.training.exclusive import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_who_comes_second_is_told_and_a_killed_process_holds_nothing(
    tmp_path: Path, tiny_config: ConfigDict
):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    message = rf"--workdir .*: process {process.pid} on .* trains in it; wait for it"
    with pytest.raises(InUseError, match=message):
        open_workdir(tmp_path, tiny_config.to_dict())
    assert not (tmp_path / "config.json").exists()
    with pytest.raises(InUseError, match=message), held(tmp_path):
        pass
    process.kill()
    process.wait()
    open_workdir(tmp_path, tiny_config.to_dict())
    with held(tmp_path), pytest.raises(InUseError), held(tmp_path):
        pass
    with held(tmp_path):
        pass
