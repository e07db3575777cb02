"""Starting several processes on this machine that are one program."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
TRAIN = ("-m", "dcft_jax.main")


def start(
    logs: Path,
    num_processes: int,
    command: Sequence[str],
    devices: int = 1,
) -> list[subprocess.Popen]:
    """Python with `command` and the options that say who is who.

    Args:
      logs: what process i prints is in `log_of(logs, i)`.
      devices: of each.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        # Scripts elsewhere import what is beside this.
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
        ),
    }
    processes = []
    for index in range(num_processes):
        options = (
            f"--coordinator_address=127.0.0.1:{port}",
            f"--num_processes={num_processes}",
            f"--process_id={index}",
        )
        with log_of(logs, index).open("w") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, *command, *options],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=env,
                )
            )
    return processes


def log_of(logs: Path, index: int) -> Path:
    return logs.with_name(f"{logs.name}.{index}.log")


def wait(processes: Sequence[subprocess.Popen], timeout_s: float) -> list[int]:
    """Their exit codes; -9 of those that had to be killed after `timeout_s`."""
    try:
        for process in processes:
            process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
    return [process.wait() for process in processes]
