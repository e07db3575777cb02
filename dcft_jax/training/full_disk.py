"""A full disk costs a checkpoint, not the run."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from orbax.checkpoint import v1 as ocp

FULL = (errno.ENOSPC, errno.EDQUOT)


class NotSavedError(OSError):
    """There was no space for the state that a run ends with."""


@contextlib.contextmanager
def outlive_full_disk(
    checkpoints: ocp.training.Checkpointer, report: Callable[[str], None]
) -> Iterator[None]:
    """Turns a save that fails for want of space into a warning.

    What it had written goes; the checkpoints from before stay.
    """
    try:
        yield
    except Exception as error:
        if not is_full_disk(error):
            raise
        folder = Path(checkpoints.directory)
        _clear(folder)
        checkpoints.reload()
        latest = checkpoints.latest
        report(
            f"warning: no space left in {folder}: a checkpoint was not saved, the run "
            f"goes on ({'none was saved' if latest is None else _kept(latest.step)}). "
            "The next is tried at run.save_every; free some space by then."
        )


def insist_on_saved(
    checkpoints: ocp.training.Checkpointer, step: int, report: Callable[[str], None]
) -> None:
    """Waits until the state of a step is on the disk.

    Raises:
      NotSavedError: it is not.
    """
    with outlive_full_disk(checkpoints, report):
        checkpoints.wait()
    latest = checkpoints.latest
    if latest is None or latest.step != step:
        where = "its beginning" if latest is None else f"step {latest.step}"
        raise NotSavedError(
            f"{checkpoints.directory}: no space left for the state of step {step}; "
            f"free some, and the same command goes on from {where}"
        )


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error comes from a full disk; TensorStore only words it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if any(os.strerror(number) in str(error) for number in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def _kept(step: int) -> str:
    return f"that of step {step} is kept"


def _clear(folder: Path) -> None:
    """Removes half-written checkpoints: Orbax does so at the next start only."""
    if jax.process_index() == 0:
        for path in folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path, ignore_errors=True)
