"""Runs jobs in parallel processes of the real trainer, and goes on where it was.

Each run is `python -m dcft_jax.main` on one core, in a folder named by its config and
the version of the code. A folder with a summary is finished and is not run again; a
sweep that was killed continues, and a run that was killed resumes at its last
checkpoint. Several sweeps may share a folder: a run is done once, the others wait for
it. All runs share one cache of compiled programs.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from queue import SimpleQueue

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dcft_jax.training.workdir import write_json
from experiments.jobs import Job

SUMMARY, CONFIG, LOG, LOCK = "summary.json", "config.json", "log.txt", "lock"
COMPILED = "compiled"  # in the folder of the runs
_LOG_LINES = 15
_STORED_CONFIG = Path(__file__).with_name("stored_config.py")

Command = Callable[[Path], list[str]]  # workdir -> what to execute


@dataclass(frozen=True)
class Failure:
    job: Job
    reason: str  # the last lines of its log, or which other job it needs


def trainer(workdir: Path) -> list[str]:
    """The command a user would type, for the config stored in the folder."""
    config = f"{_STORED_CONFIG}:{workdir / CONFIG}"
    command = [sys.executable, "-m", "dcft_jax.main", "--config", config]
    return [*command, "--workdir", str(workdir)]


def is_finished(workdir: Path) -> bool:
    return (workdir / SUMMARY).is_file()  # written whole, as the last thing


def run_jobs(
    jobs: Sequence[Job],
    runs: Path,
    num_workers: int,
    console: Console | None = None,
    command: Command = trainer,
) -> list[Failure]:
    """Runs all jobs that have not been run, and those they need.

    A failure does not stop the others; jobs that need a failed one are not started.

    Args:
      runs: folder that holds one folder for each run.
      num_workers: processes at a time; each is held on a core of its own, as long as
        there are enough.
      command: what a run executes; it must leave `SUMMARY` in the folder.
    """
    console = console or Console()
    waiting = [job for job in _distinct(jobs, runs) if not _done(job, runs)]
    failures: list[Failure] = []
    cores = SimpleQueue()
    for core in islice(cycle(available_cores()), num_workers):
        cores.put(core)
    with (
        _progress(len(waiting), console) as advance,
        ThreadPoolExecutor(num_workers, initializer=_hold, initargs=(cores,)) as pool,
        _cancelled_on_error({}) as running,
    ):
        while waiting or running:
            ready, lost, waiting = _sort(waiting, failures, runs)
            for job in ready:
                running[pool.submit(run_job, job, runs, command)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, reason = running.pop(future), future.result()
                lost += [Failure(job, reason)] if reason is not None else []
                advance(job, reason is None)
            failures += lost
    return failures


def available_cores() -> list[int]:
    """Those this process may use; macOS does not say which."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def run_job(job: Job, runs: Path, command: Command = trainer) -> str | None:
    """Runs one job to its end. Returns None, or the last lines of its log."""
    workdir = job.workdir(runs)
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / LOCK).open("a") as lock, (workdir / LOG).open("a") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_finished(workdir):
            return None  # by another sweep, while this one waited
        write_json(workdir / CONFIG, job.config)
        result = subprocess.run(
            command(workdir),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | environment(runs),
            # The run holds the lock itself: should the sweep be killed, the next one
            # waits for it instead of starting it twice.
            pass_fds=(lock.fileno(),),
        )
    if result.returncode == 0 and is_finished(workdir):
        return None
    return f"exit code {result.returncode}, {workdir / LOG} ends with\n{_tail(workdir)}"


def environment(runs: Path) -> dict[str, str]:
    """Variables of every run: cache all programs, also those that compile fast.

    A run of the mixture ablation compiles some 110 programs, most of them in
    milliseconds; 100 steps take 15 s instead of 30 s once they are cached. On some
    processors XLA refuses its own cached programs (jax issue 38445); runs then only
    take longer.
    """
    return {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(runs.absolute() / COMPILED),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def _distinct(jobs: Iterable[Job], runs: Path) -> list[Job]:
    """One job for each run, every job after those it needs."""
    found: dict[Path, Job] = {}

    def visit(job: Job) -> None:
        for needed in job.after:
            visit(needed)
        found.setdefault(job.workdir(runs), job)

    for job in jobs:
        visit(job)
    return list(found.values())


def _done(job: Job, runs: Path) -> bool:
    return is_finished(job.workdir(runs))


def _sort(
    waiting: list[Job], failures: list[Failure], runs: Path
) -> tuple[list[Job], list[Failure], list[Job]]:
    """What is ready, what waits in vain, and what has to wait on."""
    failed = {failure.job.workdir(runs) for failure in failures}
    ready, lost, left = [], [], []
    for job in waiting:
        broken = [n.name for n in job.after if n.workdir(runs) in failed]
        if broken:
            lost.append(Failure(job, f"needs {', '.join(broken)}, which failed"))
        elif all(_done(needed, runs) for needed in job.after):
            ready.append(job)
        else:
            left.append(job)
    return ready, lost, left


def _hold(cores: SimpleQueue) -> None:
    """Holds this thread, and so every process it starts, on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores.get()})


@contextlib.contextmanager
def _cancelled_on_error(running: dict[Future, Job]) -> Iterator[dict[Future, Job]]:
    """Ctrl-C reaches the processes that run; those not started must not start."""
    try:
        yield running
    except BaseException:
        for future in running:
            future.cancel()
        raise


@contextlib.contextmanager
def _progress(total: int, console: Console) -> Iterator[Callable[[Job, bool], None]]:
    columns = (
        TextColumn("runs"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # The speed over the whole sweep: a run takes as long as the usual window.
    with Progress(*columns, console=console, speed_estimate_period=1e9) as progress:
        task = progress.add_task("runs", total=total)

        def advance(job: Job, good: bool) -> None:
            progress.advance(task)
            outcome = "finished" if good else "FAILED"
            console.print(f"{outcome}: {job.name}", markup=False, highlight=False)

        yield advance


def _tail(workdir: Path) -> str:
    lines = (workdir / LOG).read_text(errors="replace").splitlines()
    return "\n".join(lines[-_LOG_LINES:])


def show_failures(failures: Sequence[Failure], console: Console) -> None:
    for failure in failures:
        text = f"\n{failure.job.name}: {failure.reason}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
