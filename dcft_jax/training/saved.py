"""Reading what another run saved."""

from orbax.checkpoint import v1 as ocp

# Restores the parts that are asked for, and leaves the others.
PARTIAL = ocp.options.PyTreeOptions(
    loading=ocp.options.PyTreeOptions.Loading(partial_load=True)
)


def check_origin(
    saved: ocp.training.Checkpointer, tokenizer_hash: str, base_hash: str, field: str
) -> None:
    """Raises ValueError unless the saved run has these tokens, and started from this
    model (""; from none).
    """
    if saved.latest is None:
        raise ValueError(f"{field}: there is no checkpoint in it")
    metadata = saved.metadata(saved.latest).custom_metadata
    metadata = metadata if isinstance(metadata, dict) else {}
    base = metadata.get("base_hash", "")
    if base != base_hash:
        raise ValueError(
            f"{field}: it started from another model (hash {base or 'of none'}, here "
            f"{base_hash or 'of none'}); set config.pretrained.path to that of its "
            "config.json, or restore the files there"
        )
    theirs = metadata.get("tokenizer_hash")
    if theirs != tokenizer_hash:
        raise ValueError(
            f"{field}: it has another tokenizer (hash {theirs}, here "
            f"{tokenizer_hash}); set config.tokenizer.path to the tokenizer.model or "
            "tokenizer/ in that folder"
        )
