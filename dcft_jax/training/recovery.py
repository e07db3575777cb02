"""The newest checkpoint that can be read; broken ones are moved aside, not deleted."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from dcft_jax.training import checkpoint
from dcft_jax.training.state import TrainState

FOLDER = "corrupt_checkpoints"


def restore(
    checkpoints: ocp.training.Checkpointer,
    abstract: TrainState,
    report: Callable[[str], None],
) -> TrainState | None:
    """The newest state that can be read, laid out as `abstract` says; None: there is no
    checkpoint. Afterwards it is the latest one of `checkpoints`.

    Raises:
      ValueError: there are checkpoints, but none can be read; all stay where they are.
    """
    broken: dict[int, Exception] = {}
    for saved in reversed(checkpoints.checkpoints):
        try:
            state = checkpoint.load(checkpoints, saved.step, abstract)
        # What Orbax raises for a broken file has many types and no common one.
        except Exception as error:
            broken[saved.step] = error
            continue
        workdir = Path(checkpoints.directory).parent
        for step, error in broken.items():
            _set_aside(workdir, step, _reason(error), report)
        if broken:
            checkpoints.reload()
            report(f"Going back to the checkpoint of step {saved.step}.")
        return state
    if broken:
        _refuse(Path(checkpoints.directory), broken)
    return None


def set_aside_unlistable(workdir: Path, report: Callable[[str], None]) -> None:
    """Moves checkpoints away whose metrics are broken: Orbax would not open any.

    Raises:
      ValueError: they are all there are.
    """
    folder = workdir / "checkpoints"
    names = [p for p in folder.glob("*") if p.name.isdigit()]
    broken = {int(p.name): error for p in names if (error := _metrics_error(p))}
    # All must have looked before the first moves anything.
    multihost_utils.sync_global_devices("looked at checkpoints")
    if broken and len(broken) == len(names):
        _refuse(folder, broken)
    for step, error in broken.items():
        _set_aside(workdir, step, _reason(error), report)


def _metrics_error(folder: Path) -> Exception | None:
    file = folder / "metrics" / "metrics"
    try:
        if file.exists():
            json.loads(file.read_text())
    except (OSError, ValueError) as error:
        return error
    return None


def _refuse(folder: Path, broken: dict[int, Exception]) -> None:
    newest = max(broken)
    raise ValueError(
        f"{folder}: none of the checkpoints {sorted(broken)} can be read (step "
        f"{newest}: {_reason(broken[newest])}). If another version of the code or of "
        "its packages wrote them, go back to that; if they are broken, start anew in "
        "another folder."
    ) from broken[newest]


def _set_aside(
    workdir: Path, step: int, reason: str, report: Callable[[str], None]
) -> None:
    aside = workdir / FOLDER
    names = [str(step), *(f"{step}-{n}" for n in range(2, 1000))]
    target = next(aside / name for name in names if not (aside / name).exists())
    if jax.process_index() == 0:
        aside.mkdir(exist_ok=True)
        (workdir / "checkpoints" / str(step)).rename(target)
    multihost_utils.sync_global_devices(f"set aside {step}")
    report(
        f"warning: the checkpoint of step {step} cannot be read ({reason}); it is now "
        f"{target}."
    )


def _reason(error: BaseException) -> str:
    """What went wrong first, in a line: Orbax wraps it."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
