"""One atomic Orbax checkpoint per saved step.

It holds the whole TrainState. The data streams need nothing of their own: they
are pure functions of (seed, position), and the positions are in the state.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

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
      ValueError: it is not what was saved; so may Orbax, with errors of many types.
    """
    metadata = checkpoints.metadata(step).custom_metadata
    if not isinstance(metadata, dict) or not metadata:
        raise ValueError("its metadata cannot be read")
    state = checkpoints.load_checkpointables(step, {"state": abstract})["state"]
    # Checkpoints from before there were fingerprints have none.
    saved = metadata.get(FINGERPRINT)
    if saved is not None and saved != fingerprint(state):
        raise ValueError("its arrays are not those that were saved")
    return state
