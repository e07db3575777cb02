"""Parameters as a HuggingFace folder: config.json and safetensors."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from dcft_jax.models.config import ModelConfig
from dcft_jax.models.decoder import STACKED, Params
from dcft_jax.models.pretrained import layout
from dcft_jax.models.pretrained.locate import CONFIG
from dcft_jax.models.pretrained.safetensors_files import INDEX, SINGLE
from dcft_jax.models.pretrained.tensors import Entry, hf_tensors
from dcft_jax.models.pretrained.to_hf import hf_config
from dcft_jax.sharding import on_host


def save_pretrained(
    config: ModelConfig,
    params: Params,
    folder: str | Path,
    *,
    max_length: int,
    max_shard_size: int = 5_000_000_000,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Writes a folder that `transformers`, and `load_pretrained`, read.

    The family follows from the config; every number is written in the dtype it has.
    The host holds one file at a time. config.json comes last, so a folder with one is
    complete. With several processes all call it, and the first writes; the hosts of the
    others hold a tensor at a time.

    Args:
      params: whatever their sharding.
      folder: made if it is not there; must not hold weights already.
      max_length: `max_position_embeddings`.
      max_shard_size: in bytes; more is split into several files with an index. A single
        larger tensor has a file of its own.
      extra: more keys of config.json, such as bos_token_id, eos_token_id, pad_token_id
        (null unless given).

    Raises:
      FileExistsError: if the folder holds weights.
      ValueError: if no family expresses the decoder, or the parameters are not those of
        the config.
    """
    folder = Path(folder)
    raw = hf_config(config, max_length)
    entries = hf_tensors(config)
    leaves = _leaves(config, params, entries)
    present = sorted(path.name for path in folder.glob("*.safetensors*"))
    if present:
        raise FileExistsError(f"{folder} already holds {present}; remove them first")
    is_first = jax.process_index() == 0
    if is_first:
        folder.mkdir(parents=True, exist_ok=True)
    files = _plan(config, entries, leaves, max_shard_size)
    for name, tensors in files.items():
        arrays = {}
        for key, place in tensors.items():
            tensor = _tensor(config, *place, leaves)
            if is_first:
                arrays[key] = tensor
        if is_first:
            save_file(arrays, folder / name, metadata={"format": "pt"})
    if not is_first:
        return
    if len(files) > 1:
        _write_index(folder, files, leaves)
    dtype = str(leaves["embed/embedding"].dtype)
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    raw = {**raw, "torch_dtype": dtype, **ids, **(extra or {})}
    (folder / CONFIG).write_text(json.dumps(raw, indent=2) + "\n")


Place = tuple[Entry, int | None]  # the layer, of a leaf of the stack


def _leaves(
    config: ModelConfig, params: Params, entries: list[Entry]
) -> dict[str, jax.Array]:
    leaves = {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    sizes, expected = layout.axis_sizes(config), {}
    for entry in entries:
        stack = (config.num_layers,) if _stacked(entry) else ()
        expected[entry.leaf] = stack + layout.leaf_shape(entry.equation, sizes)
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    for name in sorted({*shapes, *expected}):
        if shapes.get(name) != expected.get(name):
            raise ValueError(
                f"params[{name!r}] has shape {shapes.get(name)}, the config needs "
                f"{expected.get(name)} (None: no such array)"
            )
    return leaves


def _plan(
    config: ModelConfig,
    entries: list[Entry],
    leaves: dict[str, jax.Array],
    max_shard_size: int,
) -> dict[str, dict[str, Place]]:
    """Tensors of each file, in the order of the layers."""
    groups: list[dict[str, Place]] = [{}]
    room = max_shard_size
    for entry, layer in _places(config, entries):
        size = _size(entry, leaves)
        if groups[-1] and size > room:
            groups.append({})
            room = max_shard_size
        groups[-1][entry.name.format(layer=layer)] = (entry, layer)
        room -= size
    if len(groups) == 1:
        return {SINGLE: groups[0]}
    total = len(groups)
    return {
        f"model-{i:05d}-of-{total:05d}.safetensors": group
        for i, group in enumerate(groups, 1)
    }


def _places(config: ModelConfig, entries: list[Entry]) -> Iterator[Place]:
    yield from ((entry, None) for entry in entries if not _stacked(entry))
    for layer in range(config.num_layers):
        yield from ((entry, layer) for entry in entries if _stacked(entry))


def _tensor(
    config: ModelConfig, entry: Entry, layer: int | None, leaves: dict[str, jax.Array]
) -> np.ndarray:
    leaf = leaves[entry.leaf]
    host = on_host(leaf if layer is None else leaf[layer])
    sizes = layout.axis_sizes(config)
    return np.ascontiguousarray(layout.to_file(entry.equation, sizes, host))


def _size(entry: Entry, leaves: dict[str, jax.Array]) -> int:
    """Bytes of one tensor."""
    leaf = leaves[entry.leaf]
    return leaf.nbytes // (leaf.shape[0] if _stacked(entry) else 1)


def _write_index(
    folder: Path, files: dict[str, dict[str, Place]], leaves: dict[str, jax.Array]
) -> None:
    where = {name: file for file, tensors in files.items() for name in tensors}
    total = sum(leaf.nbytes for leaf in leaves.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _stacked(entry: Entry) -> bool:
    return entry.leaf.startswith(f"{STACKED}/")
