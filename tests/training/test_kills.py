"""A run that is killed at any moment, again and again, ends as if it had never been."""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from dcft_jax.config import to_plain
from tests.conftest import make_tiny_config

TIMES = (
    *("wall_s", "run/eval_s", "run/generate_s", "run/extra_s"),
    *("train/step_s", "train/tokens_per_s"),
)
# moment of killed_run.py -> kills, and up to which call of it in a start.
KILLS = {
    "start": (7, 2),
    "step": (6, 8),
    "evaluation": (5, 2),
    "save": (5, 2),
    "commit": (5, 24),
    "metrics": (2, 8),
}
LONGEST_DELAY_S = 0.1

CONFIG_FILE = """
import json
from ml_collections import ConfigDict

def build(node):
    if not isinstance(node, dict):
        return node
    fields = {{key: build(value) for key, value in node.items()}}
    return ConfigDict(fields, sort_keys=False)

def get_config():
    return build(json.loads({text!r}))
"""

Start = Callable[..., int]


def write_config(task_files: dict[str, Path], folder: Path) -> Path:
    """As little to trace and compile as can be; every part of the loop runs."""
    config = make_tiny_config(task_files, folder / "cache")
    del config.abilities["general"]
    config.run.update(num_steps=48, eval_every=4, save_every=3, log_every=1)
    config.model.update(num_layers=1, width=16, hidden=16)
    config.model.update(num_heads=2, num_kv_heads=1)
    config.tokenizer.vocab_size = 300
    config.conflict.resolver = "mean"
    path = folder / "config.py"
    text = json.dumps(to_plain(config))
    path.write_text(CONFIG_FILE.format(text=text))
    return path


@pytest.fixture(scope="module")
def start(
    tmp_path_factory: pytest.TempPathFactory, task_files: dict[str, Path]
) -> Iterator[Start]:
    """`start(workdir, moment, call, delay_s, signal)`: starts the run, returns the exit
    code."""
    config_file = write_config(task_files, tmp_path_factory.mktemp("kills"))
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("killed_run.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"},
    )
    assert server.stdin and server.stdout

    def start_run(workdir, moment=None, call=1, delay_s=0.0, number=signal.SIGKILL):
        argv = ["--config", str(config_file), "--workdir", str(workdir)]
        order = {"argv": argv, "moment": moment, "call": call, "delay_s": delay_s}
        server.stdin.write(json.dumps(order | {"signal": int(number)}) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline())

    yield start_run
    server.stdin.close()
    server.wait()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, start: Start) -> Path:
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert start(workdir) == 0
    return workdir


def saved_state(workdir: Path) -> dict[str, np.ndarray]:
    with ocp.training.Checkpointer(str(workdir / "checkpoints")) as checkpoints:
        assert checkpoints.latest
        state = checkpoints.load_checkpointables(checkpoints.latest)["state"]
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def records(workdir: Path) -> list[dict]:
    """The rows of metrics.jsonl without what a clock says."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def assert_same_end(workdir: Path, whole: Path) -> None:
    state, expected = saved_state(workdir), saved_state(whole)
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)
    assert records(workdir) == records(whole)
    names = [{p.name for p in (w / "checkpoints").iterdir()} for w in (workdir, whole)]
    assert names[0] == names[1]
    assert not (workdir / "corrupt_checkpoints").exists()


@pytest.mark.slow
def test_thirty_kills_leave_no_trace(start: Start, whole: Path, tmp_path: Path):
    workdir, rng = tmp_path / "run", random.Random(7)
    moments = [m for m, (number, _) in KILLS.items() for _ in range(number)]
    assert len(moments) == 30
    rng.shuffle(moments)
    ends = Counter()
    for moment in moments:
        call = rng.randint(1, KILLS[moment][1])
        code = start(workdir, moment, call, rng.uniform(0, LONGEST_DELAY_S))
        ends[moment, code] += 1
    assert ends == {(m, -signal.SIGKILL): n for m, (n, _) in KILLS.items()}
    assert not (workdir / "summary.json").exists()
    assert start(workdir) == 0
    assert_same_end(workdir, whole)


@pytest.mark.slow
def test_sigterm_ends_with_0_and_a_kill_at_the_finish(
    start: Start, whole: Path, tmp_path: Path
):
    workdir = tmp_path / "run"
    assert start(workdir, "step", 17, number=signal.SIGTERM) == 0
    assert not (workdir / "summary.json").exists()
    assert start(workdir, "finish") == -signal.SIGKILL
    assert start(workdir) == 0
    assert_same_end(workdir, whole)
