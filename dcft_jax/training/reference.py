"""The parameters of a finished run, as the reference model of another."""

from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from dcft_jax.training.continuation import PARTIAL, check_tokenizer
from dcft_jax.training.run import Run, abstract_state


def load_reference(run: Run) -> Any:
    """Parameters of `mixture.reference_run`, laid out as those of the run.

    Raises:
      ValueError: there is no checkpoint, or it is of another model or tokenizer.
    """
    folder = Path(run.config.mixture.reference_run)
    field = f"config.mixture.reference_run = {str(folder)!r}"
    with ocp.training.Checkpointer(str(folder.absolute() / "checkpoints")) as saved:
        check_tokenizer(saved, run, field)
        return _load_params(saved, run, field)


def _load_params(saved: ocp.training.Checkpointer, run: Run, field: str) -> Any:
    wanted = abstract_state(run).params
    target = {"state": {"params": wanted}}
    try:
        with ocp.Context(pytree_options=PARTIAL):
            state = saved.load_checkpointables(saved.latest, target)["state"]
    except (ValueError, KeyError) as error:
        shapes = jax.tree.map(lambda leaf: leaf.shape, wanted)
        raise ValueError(
            f"{field}: its parameters are not those of this model, {shapes}: {error}"
        ) from error
    return state["params"]
