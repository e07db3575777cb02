"""Runs many programs, some at a time, each in a process of its own."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from dcft_jax.evaluation.sandbox.limits import Limits
from dcft_jax.evaluation.sandbox.outcome import Outcome
from dcft_jax.evaluation.sandbox.process import Sandbox, run_program

Program = tuple[str, str]  # code, tests
_NOT_RUN = Outcome("not run", "the time for all programs was over", 0.0)


def run_programs(
    programs: Sequence[Program],
    *,
    sandbox: Sandbox,
    limits: Limits | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    deadline: float | None = None,
) -> list[Outcome]:
    """One outcome per program, in their order.

    Args:
        programs: pairs of Python source: the code and the tests that run after it.
        sandbox: from `choose_backend`.
        limits: of every program; `Limits()` by default.
        workers: how many run at once; by default the number of usable CPU cores.
        progress: called with the number of programs done and of all, one call at a
            time, from a worker thread.
        deadline: `time.monotonic()` after which no program is started; those left are
            "not run". One that runs by then may finish within its own limits.

    Raises:
        ValueError: if `workers` is not positive.
        RuntimeError: if the sandbox stops working; no verdict is made up for that.
    """
    limits = limits or Limits()
    if workers is None:
        workers = len(os.sched_getaffinity(0))
    if workers < 1:
        raise ValueError(f"workers={workers}: must be at least 1")
    stop, lock, done = threading.Event(), threading.Lock(), 0

    def run(program: Program) -> Outcome:
        nonlocal done
        late = deadline is not None and time.monotonic() >= deadline
        if late or stop.is_set():
            return _NOT_RUN
        outcome = run_program(*program, sandbox, limits)
        with lock:
            done += 1
            if progress:
                progress(done, len(programs))
        return outcome

    with ThreadPoolExecutor(workers, thread_name_prefix="sandbox") as pool:
        futures = [pool.submit(run, program) for program in programs]
        try:
            return [future.result() for future in futures]
        finally:
            # After an error or Ctrl-C: nothing more is started.
            stop.set()
