"""Reading what another run saved."""

from collections.abc import Mapping
from typing import Any

from orbax.checkpoint import v1 as ocp


def load_parts(
    saved: ocp.training.Checkpointer, step: Any, target: Mapping[str, Any]
) -> Any:
    """The parts of a saved state that are in `target`, and no others.

    Args:
      step: or a checkpoint, as `saved.latest`.
      target: of the state, abstract, with shardings.

    Raises:
      ValueError, KeyError: what is saved has other parts or shapes.
    """
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        return saved.load_checkpointables(step, {"state": dict(target)})["state"]


def check_origin(
    saved: ocp.training.Checkpointer, tokenizer_hash: str, base_hash: str, field: str
) -> None:
    """Raises ValueError unless the saved run has this tokenizer and base ("": none)."""
    if saved.latest is None:
        raise ValueError(f"{field}: there is no checkpoint in it")
    metadata = saved.metadata(saved.latest).custom_metadata
    metadata = metadata if isinstance(metadata, dict) else {}
    base = metadata.get("base_hash", "")
    if base != base_hash:
        raise ValueError(
            f"{field}: it started from another model (hash {base or '-'}, here "
            f"{base_hash or '-'}); set config.pretrained.path to that of its "
            "config.json, or restore the files there"
        )
    theirs = metadata.get("tokenizer_hash")
    if theirs != tokenizer_hash:
        raise ValueError(
            f"{field}: it has another tokenizer (hash {theirs}, here "
            f"{tokenizer_hash}); set config.tokenizer.path to the tokenizer.model or "
            "tokenizer/ in that folder"
        )
