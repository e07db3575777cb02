"""One atomic Orbax checkpoint per saved step.

It holds the whole TrainState. The data streams need nothing of their own: they
are pure functions of (seed, position), and the positions are in the state.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

from dcft_jax import distributed
from dcft_jax.training import joint_save
from dcft_jax.training.fingerprint import fingerprint
from dcft_jax.training.state import TrainState

FINGERPRINT = "fingerprint"


def open_checkpoints(
    workdir: Path, save_every: int, keep: int, best_of: Sequence[str] = ()
) -> ocp.training.Checkpointer:
    """Opens `workdir/checkpoints`; half-written ones of a killed run are removed.

    Kept are the latest, and for each ability in `best_of` the one with its lowest
    mix-val loss, of those saved at an evaluation.
    """
    keep_policies = ocp.training.preservation_policies
    when = ocp.training.save_decision_policies.FixedIntervalPolicy(save_every)
    kept = keep_policies.AnyPreservationPolicy(
        [
            keep_policies.LatestN(keep),
            *(
                keep_policies.BestN(
                    get_metric_fn=partial(_goodness, name),
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
                for name in best_of
            ),
        ]
    )
    # Orbax declares its own policies with types that its protocols do not admit.
    return ocp.training.Checkpointer(
        str(workdir.absolute() / "checkpoints"),
        context=joint_save.make_context(),
        save_decision_policy=when,  # pyright: ignore[reportArgumentType]
        preservation_policy=kept,  # pyright: ignore[reportArgumentType]
        cleanup_tmp_directories=True,
    )


def is_due(checkpoints: ocp.training.Checkpointer, step: int, at_end: bool) -> bool:
    """Due by cadence or at the end; never twice."""
    latest = checkpoints.latest
    if latest is not None and latest.step == step:
        return False
    return at_end or checkpoints.should_save(step)


def save(
    checkpoints: ocp.training.Checkpointer,
    step: int,
    state: TrainState,
    metadata: Mapping[str, Any],
    losses: Mapping[str, float] | None = None,
) -> None:
    """Starts a save and returns once the state is copied off the devices.

    Nothing is written before that: what goes wrong then is raised by `wait`.

    Args:
      metadata: config, versions, data hash: makes the checkpoint explain itself.
      losses: mix-val loss of each ability, if this step was evaluated.
    """
    checkpoints.save_checkpointables_async(
        step,
        {joint_save.STATE: state},
        custom_metadata={**metadata, FINGERPRINT: fingerprint(state)},
        metrics=dict(losses) if losses else None,
        force=True,
    )


def _goodness(ability: str, losses: Mapping[str, float]) -> float:
    return -losses[ability]


def load(
    checkpoints: ocp.training.Checkpointer, step: int, abstract: TrainState
) -> TrainState:
    """The state saved at a step that is kept, laid out as `abstract` says, not as it
    was when saved.

    Raises:
      ValueError: it cannot be read, or is not what was saved; with several processes,
        in all of them if in one.
    """
    state, saved, wrong = None, None, ""
    try:
        state, saved = _read(checkpoints, step, abstract)
    # What Orbax raises for a broken file has many types and no common one.
    except Exception as error:
        wrong, cause = reason(error), error
    else:
        cause = None
    said = distributed.words_of_all(wrong)
    failed = [index for index, text in enumerate(said) if text]
    if failed:
        who = f"processes {failed}: " if len(said) > 1 else ""
        raise ValueError(f"{who}{said[failed[0]]}") from cause
    assert state is not None
    # Checkpoints from before there were fingerprints have none.
    if saved is not None and saved != fingerprint(state):
        raise ValueError("its arrays are not those that were saved")
    return state


def reason(error: BaseException) -> str:
    """What went wrong first, in a line: Orbax wraps it."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def _read(
    checkpoints: ocp.training.Checkpointer, step: int, abstract: TrainState
) -> tuple[Any, Any]:
    """What this process holds of the state, without waiting for others, and the
    fingerprint of the whole.
    """
    metadata = checkpoints.metadata(step)
    if not isinstance(metadata.custom_metadata, dict) or not metadata.custom_metadata:
        raise ValueError("its metadata cannot be read")
    alone = ocp.Context()
    me = ocp.multihost.process_index()
    # Orbax lets the others wait at the end of a load for one that failed.
    alone.multiprocessing.active_processes = {me}
    alone.multiprocessing.primary_host = me
    with alone:
        loaded = ocp.load_checkpointables(metadata.path, {joint_save.STATE: abstract})
    return loaded[joint_save.STATE], metadata.custom_metadata.get(FINGERPRINT)
