"""The notice that a machine is about to be taken away: SIGTERM.

One process notices by itself. Of several each may be told at another moment, so that
they agree on a step through the preemption service of `jax.distributed`, which has a
handler of its own.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):  # noqa: N818 - no error: all is saved
    """The run was told to end and has saved its state; the message says where."""


@contextlib.contextmanager
def notice() -> Iterator[Callable[[int], bool]]:
    """Yields `reached(step)`: is this the step to save at and end?

    To be asked at every step boundary. The first SIGTERM is noticed; a second one ends
    the process at once, as it would without this.
    """
    if jax.distributed.is_initialized():
        yield _agreed
    elif threading.current_thread() is not threading.main_thread():
        yield lambda step: False  # only the main thread may handle signals
    else:
        with _handler() as told:
            yield lambda step: told.is_set()


def _agreed(step: int) -> bool:
    try:
        return multihost_utils.reached_preemption_sync_point(step)
    except RuntimeError:  # jax_enable_preemption_service is off
        return False


@contextlib.contextmanager
def _handler() -> Iterator[threading.Event]:
    told = threading.Event()
    # None: a handler that was not set from Python, which cannot be put back.
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL

    def note(number: int, frame: object) -> None:
        told.set()
        signal.signal(signal.SIGTERM, before)

    signal.signal(signal.SIGTERM, note)
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)
