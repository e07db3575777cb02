"""The newest checkpoint that can be read; broken ones are moved aside, not deleted."""

import json
from collections.abc import Callable
from pathlib import Path

from orbax.checkpoint import v1 as ocp

from dcft_jax import distributed
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
    found = [saved.step for saved in reversed(checkpoints.checkpoints)]
    distributed.check_same(f"the checkpoints in {checkpoints.directory}", found)
    broken: dict[int, ValueError] = {}
    for step in found:
        try:
            state = checkpoint.load(checkpoints, step, abstract)
        except ValueError as error:
            broken[step] = error
            continue
        workdir = Path(checkpoints.directory).parent
        for bad, error in broken.items():
            _set_aside(workdir, bad, str(error), report)
        if broken:
            checkpoints.reload()
            report(f"Going back to the checkpoint of step {step}.")
        return state
    if broken:
        newest = max(broken)
        raise _none_can_be_read(
            Path(checkpoints.directory), list(broken), str(broken[newest])
        ) from broken[newest]
    return None


def set_aside_unlistable(workdir: Path, report: Callable[[str], None]) -> None:
    """Moves checkpoints away whose metrics are broken: Orbax would not open any.

    Raises:
      ValueError: they are all there are.
    """
    folder = workdir / "checkpoints"
    names = [p for p in folder.glob("*") if p.name.isdigit()]
    mine = {p.name: wrong for p in names if (wrong := _wrong_metrics(p))}
    # All have looked before the first moves anything.
    said = [json.loads(text) for text in distributed.words_of_all(json.dumps(mine))]
    broken = {int(name): wrong for found in said for name, wrong in found.items()}
    if broken and len(broken) == len(names):
        raise _none_can_be_read(folder, list(broken), broken[max(broken)])
    for step, wrong in sorted(broken.items()):
        _set_aside(workdir, step, wrong, report)


def _wrong_metrics(folder: Path) -> str:
    file = folder / "metrics" / "metrics"
    try:
        if file.exists():
            json.loads(file.read_text())
    except (OSError, ValueError) as error:
        return checkpoint.reason(error)
    return ""


def _none_can_be_read(folder: Path, steps: list[int], wrong: str) -> ValueError:
    return ValueError(
        f"{folder}: none of the checkpoints {sorted(steps)} can be read (step "
        f"{max(steps)}: {wrong}). If another version of the code or of its packages "
        "wrote them, go back to that; if they are broken, start anew in another folder."
    )


def _set_aside(
    workdir: Path, step: int, reason: str, report: Callable[[str], None]
) -> None:
    aside = workdir / FOLDER
    names = [str(step), *(f"{step}-{n}" for n in range(2, 1000))]
    free = next(name for name in names if not (aside / name).exists())
    target = aside / distributed.words_of_all(free)[0]
    if distributed.is_first():
        aside.mkdir(exist_ok=True)
        (workdir / "checkpoints" / str(step)).rename(target)
    distributed.meet()
    report(
        f"warning: the checkpoint of step {step} cannot be read ({reason}); it is now "
        f"{target}."
    )
