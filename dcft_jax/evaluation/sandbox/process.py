"""Runs one program in a sandbox and judges it."""

import contextlib
import marshal
import os
import secrets
import select
import signal
import socket
import subprocess
import tempfile
import time
from typing import IO, NamedTuple

from dcft_jax.evaluation.sandbox.folder import scratch_folder
from dcft_jax.evaluation.sandbox.interpreter import ENVIRONMENT
from dcft_jax.evaluation.sandbox.limits import Limits
from dcft_jax.evaluation.sandbox.outcome import Outcome

START_SECONDS = 60.0  # far more than a sandbox needs, on a busy machine
# As in harness.py, which cannot be imported.
READY, ENDED, FAILED = b"R", b"E", b"F"
_SECRET_BYTES = 16
_MAX_REPORT = 4096


class Sandbox(NamedTuple):
    """A command that runs Python with the harness, contained by a backend."""

    name: str  # "bwrap", "unshare" or "weak"
    command: tuple[str, ...]
    user: int | None = None  # who the program is, if not who we are
    own_folder: bool = True  # else it needs one of the machine's file system


def run_program(
    code: str, tests: str, sandbox: Sandbox, limits: Limits | None = None
) -> Outcome:
    """Runs `code`, then `tests` in the same namespace, in a process of its own.

    It passed if the process ended with 0 and the harness, after the tests, answered a
    challenge with a key, both random.

    Raises:
        RuntimeError: if the sandbox itself does not start.
    """
    limits = limits or Limits()
    with (
        contextlib.nullcontext("/") if sandbox.own_folder else scratch_folder() as cwd,
        tempfile.TemporaryFile() as output,
    ):
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = subprocess.Popen(
                    sandbox.command,
                    stdin=theirs.fileno(),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=ENVIRONMENT,
                    close_fds=True,
                    start_new_session=True,
                )
            key = secrets.token_bytes(_SECRET_BYTES)
            try:
                talk = _talk(process, ours, _job(code, tests, key, limits), key, limits)
            finally:
                returncode = _end(process)
        return _judge(talk, returncode, sandbox, limits, output)


class _Talk(NamedTuple):
    report: bytes  # what the harness, or a program in its place, sent
    ready: bool
    answered: bool
    ended: bool  # by itself
    seconds: float


def _job(code: str, tests: str, key: bytes, limits: Limits) -> bytes:
    job = marshal.dumps(
        {
            "code": code,
            "tests": tests,
            "key": key,
            "challenge_bytes": _SECRET_BYTES,
            "limits": limits.resources(),
        }
    )
    return len(job).to_bytes(8, "big") + job


def _talk(
    process: subprocess.Popen[bytes],
    channel: socket.socket,
    job: bytes,
    key: bytes,
    limits: Limits,
) -> _Talk:
    """Everything until the process ends or its time is over."""
    challenge = secrets.token_bytes(_SECRET_BYTES)
    report, ready_at, challenged, ended = b"", None, False, False
    start = time.monotonic()
    until = start + START_SECONDS
    channel.settimeout(START_SECONDS)
    with contextlib.suppress(OSError):  # it died or hangs: seen below
        channel.sendall(job)
    channel.setblocking(False)
    with _watch(process.pid, channel) as poll:
        while (left := until - time.monotonic()) > 0:
            events = dict(poll.poll(left * 1000))
            if channel.fileno() in events:
                part = _receive(channel, _MAX_REPORT - len(report))
                report += part
                if not part:  # closed, flooded
                    poll.unregister(channel)
            if ready_at is None and report.startswith(READY):
                ready_at = time.monotonic()
                until = ready_at + limits.wall_seconds
            if not challenged and report.startswith(READY + ENDED):
                challenged = True
                with contextlib.suppress(OSError):
                    channel.send(challenge)
            if events and channel.fileno() not in events:
                ended = True
                break
    return _Talk(
        report.removeprefix(READY),
        ready_at is not None,
        report == READY + ENDED + key + challenge,
        ended,
        time.monotonic() - (ready_at or start),
    )


@contextlib.contextmanager
def _watch(pid: int, channel: socket.socket):
    """A poll object that sees the end of the process and what comes over the socket."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(channel, select.POLLIN)
        yield poll
    finally:
        os.close(descriptor)


def _receive(channel: socket.socket, size: int) -> bytes:
    try:
        return channel.recv(size) if size > 0 else b""
    except OSError:
        return b""


def _end(process: subprocess.Popen[bytes]) -> int:
    """Kills what is left of the process group and gives the return code."""
    # Before it is reaped: afterwards the number may be another group's.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _judge(
    talk: _Talk,
    returncode: int,
    sandbox: Sandbox,
    limits: Limits,
    output: IO[bytes],
) -> Outcome:
    if not talk.ready:
        output.seek(0)
        printed = _one_line(output.read(limits.output_bytes))
        raise RuntimeError(
            f"sandbox {sandbox.name!r} did not start: "
            f"{printed or f'no answer (return code {returncode})'}"
        )
    if not talk.ended:
        error = f"ran for more than {limits.wall_seconds:g} s"
        return Outcome("timeout", error, talk.seconds)
    if talk.answered and returncode == 0:
        return Outcome("passed", "", talk.seconds)
    if talk.report.startswith(FAILED):
        error = _one_line(talk.report.removeprefix(FAILED))
        return Outcome("failed", error, talk.seconds)
    # bwrap(1) and sh(1) turn a death by signal into 128 + its number.
    number = -returncode if returncode < 0 else returncode - 128
    too_long = number == signal.SIGKILL and talk.seconds >= limits.cpu_seconds
    if number == signal.SIGXCPU or too_long:
        error = f"used more than {limits.cpu_seconds} s of CPU time"
        return Outcome("timeout", error, talk.seconds)
    error = f"ended with return code {returncode} before its tests did"
    printed = _tail(output, limits.output_bytes)
    return Outcome("failed", f"{error}: {printed}" if printed else error, talk.seconds)


def _tail(output: IO[bytes], size: int) -> str:
    """The last line among the last `size` bytes that were printed."""
    end = output.seek(0, os.SEEK_END)
    output.seek(max(end - size, 0))
    lines = output.read(size).split(b"\n")
    return _one_line(next((line for line in reversed(lines) if line.strip()), b""))


def _one_line(data: bytes) -> str:
    text = " ".join(data[:2000].decode("utf-8", "replace").split())
    return "".join(c if c.isprintable() else "?" for c in text)[:500]
