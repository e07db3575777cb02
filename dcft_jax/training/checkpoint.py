"""One atomic Orbax checkpoint per saved step.

It holds the whole TrainState. The data streams need nothing of their own: they
are pure functions of (seed, position), and the positions are in the state.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

from dcft_jax.training.state import TrainState


def open_checkpoints(
    workdir: Path, save_every: int, keep: int
) -> ocp.training.Checkpointer:
    """Opens `workdir/checkpoints`; half-written ones of a killed run are removed."""
    save_policies = ocp.training.save_decision_policies
    keep_policies = ocp.training.preservation_policies
    when = save_policies.AnySavePolicy(
        [
            save_policies.FixedIntervalPolicy(save_every),
            save_policies.PreemptionCheckpointingPolicy(),
        ]
    )
    # Orbax declares its own policies with types that its protocols do not admit.
    return ocp.training.Checkpointer(
        str(workdir.absolute() / "checkpoints"),
        save_decision_policy=when,  # pyright: ignore[reportArgumentType]
        preservation_policy=keep_policies.LatestN(keep),  # pyright: ignore[reportArgumentType]
        cleanup_tmp_directories=True,
    )


def is_due(checkpoints: ocp.training.Checkpointer, step: int, at_end: bool) -> bool:
    """Due by cadence, at the end, or before a preemption; never twice."""
    latest = checkpoints.latest
    if latest is not None and latest.step == step:
        return False
    return at_end or checkpoints.should_save(step)


def save(
    checkpoints: ocp.training.Checkpointer,
    step: int,
    state: TrainState,
    metadata: Mapping[str, Any],
) -> None:
    """Starts a save and returns once the state is copied off the devices.

    `metadata` (config, versions, data hash) makes the checkpoint explain itself.
    """
    checkpoints.save_checkpointables_async(
        step, {"state": state}, custom_metadata=dict(metadata), force=True
    )


def restore(
    checkpoints: ocp.training.Checkpointer, abstract: TrainState
) -> TrainState | None:
    """The latest state, laid out as `abstract` says, not as it was when saved."""
    if checkpoints.latest is None:
        return None
    target = {"state": abstract}
    return checkpoints.load_checkpointables(checkpoints.latest, target)["state"]
