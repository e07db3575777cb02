"""Runs of several processes on this machine are the same as runs of one."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from dcft_jax import distributed
from dcft_jax.config import to_plain
from dcft_jax.training.loop import train
from dcft_jax.training.run import Run, open_run
from tests.conftest import make_tiny_config
from tests.processes import TRAIN, log_of, start, wait
from tests.training.test_kills import CONFIG_FILE
from tests.training.test_resume import QUIET, cut_at, records

TIMEOUT_S = 400.0  # of a run; all tests share the processors


@dataclasses.dataclass(frozen=True)
class Runs:
    """One run by one process with four devices, and by four with one each."""

    one: Run
    four: Path
    config_file: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, task_files: dict[str, Path]) -> Runs:
    folder = tmp_path_factory.mktemp("processes")
    config = make_config(task_files, folder / "cache")
    file = folder / "config.py"
    file.write_text(CONFIG_FILE.format(text=json.dumps(to_plain(config))))
    four = folder / "four"
    processes = start(four, 4, train_command(file, four))
    assert wait(processes, TIMEOUT_S) == [0] * 4, log_of(four, 0).read_text()
    one = open_run(config, folder / "one", QUIET, jax.devices()[:4])
    train(one)
    return Runs(one, four, file)


def train_command(config_file: Path, workdir: Path) -> tuple[str, ...]:
    return (*TRAIN, f"--config={config_file}", f"--workdir={workdir}")


def make_config(task_files: dict[str, Path], cache_dir: Path) -> ConfigDict:
    config = make_tiny_config(task_files, cache_dir)
    config.run.update(save_every=3, log_every=1)
    # Devices of a process lie along both axes that split a batch, if it has two.
    config.mesh.update(ability=2, data=-1)
    return config


def assert_close(found: list[dict], expected: list[dict]) -> None:
    """Rows of metrics.jsonl; what counts tokens, rows or slots is exact."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name, value in b.items():
            counted = ("train/tokens", "train/response_tokens", "mixture/slots")
            tolerance = 0.0 if name.startswith(counted) else 1e-4
            np.testing.assert_allclose(
                np.array(a[name], float),
                np.array(value, float),
                rtol=tolerance,
                atol=tolerance,
                err_msg=f"{name} at step {b['step']}",
            )


@pytest.mark.slow
def test_four_processes_train_as_one(runs: Runs):
    assert_close(records(runs.four), records(runs.one.workdir))


@pytest.mark.slow
def test_only_the_first_process_writes_and_speaks(runs: Runs):
    assert "train loss" in log_of(runs.four, 0).read_text()
    for index in (1, 2, 3):
        lines = log_of(runs.four, index).read_text().splitlines()
        assert all(line.startswith("[Gloo]") for line in lines if line)
    steps = [(row["step"], *row) for row in records(runs.four)]
    assert len(set(steps)) == len(steps)
    assert (runs.four / "summary.json").is_file()


@pytest.mark.slow
def test_two_processes_go_on_from_what_four_saved(runs: Runs, tmp_path: Path):
    four = dataclasses.replace(runs.one, workdir=runs.four)
    cut_at(four, 3, tmp_path / "two")
    command = train_command(runs.config_file, tmp_path / "two")
    processes = start(tmp_path / "two", 2, command, devices=2)
    codes = wait(processes, TIMEOUT_S)
    assert codes == [0, 0], log_of(tmp_path / "two", 0).read_text()
    said = " ".join(log_of(tmp_path / "two", 0).read_text().split())
    assert "at step 3." in said
    assert_close(records(tmp_path / "two"), records(runs.four))


@pytest.mark.slow
def test_one_process_goes_on_from_what_four_saved(runs: Runs, tmp_path: Path):
    four = dataclasses.replace(runs.one, workdir=runs.four)
    alone = cut_at(four, 3, tmp_path / "one")
    train(alone)
    assert_close(records(alone.workdir), records(runs.four))


# Steps that all take together, as training does, for as long as nobody dies.
CHILD = """
import argparse, time
import numpy as np
from jax.experimental import multihost_utils
from dcft_jax import distributed

parser = argparse.ArgumentParser()
distributed.add_options(parser)
distributed.start_from(parser.parse_args())
with distributed.all_or_none():
    distributed.check_same("the child", 1.0, np.arange(3))
    for step in range(2000):
        multihost_utils.broadcast_one_to_all(np.int32(step))
        if step == 3:
            print("going", flush=True)
        time.sleep(0.05)
"""


def start_children(logs: Path, code: str = CHILD) -> list[subprocess.Popen]:
    file = logs.with_suffix(".py")
    file.write_text(code)
    return start(logs, 2, (str(file), "--heartbeat_timeout_seconds=5"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "how"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)]
)
def test_the_others_end_when_one_dies(tmp_path: Path, victim: int, how: signal.Signals):
    processes = start_children(tmp_path / "child")
    logs = [log_of(tmp_path / "child", index) for index in (0, 1)]
    deadline = time.monotonic() + 120
    while not all("going" in log.read_text() for log in logs):
        assert time.monotonic() < deadline, [log.read_text() for log in logs]
        time.sleep(0.2)
    processes[victim].send_signal(how)
    survivor = 1 - victim
    # Silence is noticed after 5 s; a closed connection at once.
    codes = wait(processes[survivor : survivor + 1], 60)
    processes[victim].kill()
    processes[victim].wait()
    assert codes[0] not in (0, -signal.SIGKILL), logs[survivor].read_text()
    said = logs[survivor].read_text()
    assert "Start all of them again" in said or "heartbeat" in said.lower()


@pytest.mark.slow
def test_processes_that_differ_are_told(tmp_path: Path):
    code = CHILD.replace("1.0,", "distributed.is_first(),")
    processes = start_children(tmp_path / "child", code)
    codes = wait(processes, 60)
    assert 0 not in codes and -signal.SIGKILL not in codes
    said = log_of(tmp_path / "child", 0).read_text()
    assert "the child: processes [1] differ from process 0" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(process_id=1), "--coordinator_address: is missing"),
        (dict(coordinator_address="a:1", num_processes=2), "--process_id: is missing"),
        (
            dict(coordinator_address="host", num_processes=2, process_id=0),
            "--coordinator_address 'host': must be host:port",
        ),
        (
            dict(coordinator_address="a:1", num_processes=0, process_id=0),
            "--num_processes 0: must be at least 1",
        ),
        (
            dict(coordinator_address="a:1", num_processes=2, process_id=2),
            r"--process_id 2: must be in \[0, --num_processes 2\)",
        ),
    ],
)
def test_wrong_options_name_the_flag(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        distributed.start(**options)


def test_one_process_needs_nobody():
    distributed.start(num_processes=1)
    jax.devices()
    distributed.start()  # too late to look for others: as in a notebook
    assert not jax.distributed.is_initialized()
    with distributed.first_goes_first():
        distributed.check_same("anything", 1)
    with pytest.raises(SystemExit), distributed.all_or_none():
        sys.exit(3)


def test_clusters_are_left_to_jax(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **o: asked.append(o))
    distributed.start()
    distributed.start("10.0.0.1:8476", 4, 3, 7)
    assert asked == [
        dict(heartbeat_timeout_seconds=distributed.HEARTBEAT_TIMEOUT_S),
        dict(
            coordinator_address="10.0.0.1:8476",
            num_processes=4,
            process_id=3,
            heartbeat_timeout_seconds=7,
            cluster_detection_method="deactivate",
        ),
    ]
