"""A full disk costs a checkpoint or a report, not the run."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from orbax.checkpoint import v1 as ocp

from dcft_jax.distributed import first_goes_first, is_first, of_all
from dcft_jax.training.joint_save import settle

FULL = (errno.ENOSPC, errno.EDQUOT)
_SAVED, _FAILED, _FULL = range(3)


class NotSavedError(OSError):
    """There was no space for the state that a run ends with."""


def wait_for_save(
    checkpoints: ocp.training.Checkpointer, report: Callable[[str], None]
) -> None:
    """Waits for a save that goes on; one that fails for want of space, in any of the
    processes, is a warning.

    What it had written goes; the checkpoints from before stay.

    Raises:
      RuntimeError: another process could not save, for another reason.
    """
    error = None
    try:
        checkpoints.wait()
    except Exception as raised:
        error = raised
    if not _found_full(error):
        return
    folder = Path(checkpoints.directory)
    settle()
    of_all(_FULL)  # the first clears what nobody writes any more
    with first_goes_first():
        _clear(folder)
    checkpoints.reload()
    latest = checkpoints.latest
    report(
        f"warning: no space left in {folder}: a checkpoint was not saved, the run "
        f"goes on ({'none was saved' if latest is None else _kept(latest.step)}). "
        "The next is tried at run.save_every; free some space by then."
    )


def _found_full(error: Exception | None) -> bool:
    """Whether a process had no space; raises if one failed and none had."""
    code = _FULL if is_full_disk(error) else _SAVED if error is None else _FAILED
    codes = of_all(code)
    if _FULL in codes:  # errors of the others are its consequences
        return True
    if error is not None:
        raise error
    failed = [index for index, code in enumerate(codes) if code == _FAILED]
    if failed:
        raise RuntimeError(
            f"processes {failed} could not save a checkpoint; their output says why"
        )
    return False


def find_unsaved(
    checkpoints: ocp.training.Checkpointer, step: int, report: Callable[[str], None]
) -> NotSavedError | None:
    """Waits until the state of a step is on the disk; what to raise if it is not."""
    wait_for_save(checkpoints, report)
    latest = checkpoints.latest
    if latest is not None and latest.step == step:
        return None
    where = "its beginning" if latest is None else f"step {latest.step}"
    return NotSavedError(
        f"{checkpoints.directory}: no space left for the state of step {step}; "
        f"free some, and the same command goes on from {where}"
    )


@contextlib.contextmanager
def closed(
    checkpoints: ocp.training.Checkpointer,
) -> Iterator[ocp.training.Checkpointer]:
    """The checkpoints, closed at the end: Orbax raises once more what was a warning."""
    try:
        yield checkpoints
    finally:
        try:
            checkpoints.close()
        except Exception as error:
            if not is_full_disk(error):
                raise


@contextlib.contextmanager
def warn_if_full(path: Path, report: Callable[[str], None]) -> Iterator[None]:
    """A file for which there is no space is a warning; the body replaces it whole."""
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        report(
            f"warning: no space left for {path}; free some, and the same command "
            "writes it"
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
    if is_first():
        for path in folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path, ignore_errors=True)
