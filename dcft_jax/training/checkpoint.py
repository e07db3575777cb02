"""One atomic Orbax checkpoint per saved step.

It holds the whole TrainState. The data streams need nothing of their own: they
are pure functions of (seed, position), and the positions are in the state.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from orbax.checkpoint import v1 as ocp

from dcft_jax.training.state import TrainState


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

    Args:
      metadata: config, versions, data hash: makes the checkpoint explain itself.
      losses: mix-val loss of each ability, if this step was evaluated.
    """
    checkpoints.save_checkpointables_async(
        step,
        {"state": state},
        custom_metadata=dict(metadata),
        metrics=dict(losses) if losses else None,
        force=True,
    )


def _goodness(ability: str, losses: Mapping[str, float]) -> float:
    return -losses[ability]


def restore(
    checkpoints: ocp.training.Checkpointer, abstract: TrainState
) -> TrainState | None:
    """The latest state, laid out as `abstract` says, not as it was when saved."""
    if checkpoints.latest is None:
        return None
    return load(checkpoints, checkpoints.latest.step, abstract)


def load(
    checkpoints: ocp.training.Checkpointer, step: int, abstract: TrainState
) -> TrainState:
    """The state saved at a step that is kept."""
    return checkpoints.load_checkpointables(step, {"state": abstract})["state"]
