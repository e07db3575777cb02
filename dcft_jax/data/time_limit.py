"""Work that may hang, such as a file system that does not answer."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


def within(seconds: float, work: Callable[[], Result]) -> Result:
    """What `work()` returns, or raises, unless that takes longer.

    It cannot be interrupted: after the limit its thread is left to itself and ends with
    the process.

    Raises:
        TimeoutError: it took longer.
    """
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = work()
        except BaseException as error:  # raised again in the thread that waits
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True, name="within")
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"not done after {seconds:g} s")
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]
