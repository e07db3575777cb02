"""Starting a command as several processes on this machine."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def start(
    workdir: Path, num_processes: int, devices: int, arguments: list[str]
) -> list[subprocess.Popen]:
    """`python -m dcft_jax.main`, with so many devices each; output in workdir/../N.log.

    A process is let go of with `wait`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    processes = []
    for index in range(num_processes):
        command = [
            *(sys.executable, "-m", "dcft_jax.main", "--workdir", str(workdir)),
            f"--coordinator_address=127.0.0.1:{port}",
            f"--num_processes={num_processes}",
            f"--process_id={index}",
            *arguments,
        ]
        with log_of(workdir, index).open("w") as log:
            processes.append(
                subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env)
            )
    return processes


def log_of(workdir: Path, index: int) -> Path:
    return workdir.with_name(f"{workdir.name}.{index}.log")


def wait(processes: list[subprocess.Popen], timeout_s: float) -> list[int]:
    """Their exit codes. Those that do not end in time are killed and -9."""
    try:
        for process in processes:
            process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
    return [process.wait() for process in processes]
