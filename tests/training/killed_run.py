"""Runs `dcft_jax.main` again and again and lets it kill itself; see test_kills.

Reads one JSON object per line: {"argv": [...], "moment": name or null, "call": n,
"delay_s": s, "signal": number}. The signal comes `delay_s` after call n of the function
at that moment has begun, from another thread: inside the call, or after it. Answers the
exit code, negative for a signal. What takes long to import is imported once; every run
is a fork, before JAX has started a backend.
"""

import gc
import importlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

from absl import app

from dcft_jax import main

LOOP = "dcft_jax.training.loop"
# moment -> the functions whose calls are counted, as (module, attribute).
MOMENTS = {
    "start": [("dcft_jax.main", "open_run"), (LOOP, "restore_or_init")],
    "step": [(LOOP, "next_slots"), ("dcft_jax.training.log", "jax.device_get")],
    "evaluation": [(LOOP, "evaluate"), (LOOP, "score")],
    "save": [(LOOP, "checkpoint.save")],
    # Orbax commits, and deletes what is no longer kept, in threads.
    "commit": [("os", "rename"), ("os", "replace"), ("os", "rmdir")],
    "metrics": [("dcft_jax.reporting.jsonl", "JsonlWriter.write")],
    "finish": [(LOOP, "finish")],
}


def arm(moment: str, call: int, delay_s: float, signal: int) -> None:
    calls = 0

    def kill() -> None:
        time.sleep(delay_s)
        os.kill(os.getpid(), signal)

    def watched(function: Callable) -> Callable:
        def counted(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == call:
                threading.Thread(target=kill, daemon=True).start()
            return function(*args, **kwargs)

        return counted

    for module, path in MOMENTS[moment]:
        *parents, name = path.split(".")
        owner = importlib.import_module(module)
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, name, watched(getattr(owner, name)))


def run(order: dict) -> None:
    if order["moment"]:
        arm(order["moment"], order["call"], order["delay_s"], order["signal"])
    code = 1
    try:
        app.run(main.main, argv=["dcft_jax.main", *order["argv"]])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what runs print is for people
    # A run is tracing above all, of which garbage collection is a fifth.
    gc.freeze()
    gc.disable()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


if __name__ == "__main__":
    serve()
