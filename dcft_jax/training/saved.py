"""Reading what another run saved."""

from orbax.checkpoint import v1 as ocp

# Restores the parts that are asked for, and leaves the others.
PARTIAL = ocp.options.PyTreeOptions(
    loading=ocp.options.PyTreeOptions.Loading(partial_load=True)
)


def check_tokenizer(
    saved: ocp.training.Checkpointer, tokenizer_hash: str, field: str
) -> None:
    """Raises ValueError unless the tokens of the saved run mean the same."""
    if saved.latest is None:
        raise ValueError(f"{field}: there is no checkpoint in it")
    metadata = saved.metadata(saved.latest).custom_metadata
    theirs = metadata.get("tokenizer_hash") if isinstance(metadata, dict) else None
    if theirs != tokenizer_hash:
        raise ValueError(
            f"{field}: it has another tokenizer (hash {theirs}, here "
            f"{tokenizer_hash}); set config.tokenizer.path to the tokenizer.model or "
            "tokenizer/ in that folder"
        )
