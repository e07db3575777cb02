"""Checks a checkpoint against a decoder, and reads it into its shards."""

import functools
import re
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dcft_jax import sharding
from dcft_jax.models.config import ModelConfig
from dcft_jax.models.decoder import STACKED, Params, init
from dcft_jax.models.pretrained import layout
from dcft_jax.models.pretrained.checkpoint import Checkpoint
from dcft_jax.models.pretrained.tensors import Entry

SHOWN = 5  # names in a message


def abstract_params(config: ModelConfig, mesh: Mesh | None = None) -> Params:
    """Shapes, dtypes and, with a mesh, shardings of the parameters; no array is made.

    Raises:
      ValueError: if the mesh splits an axis of the parameters unevenly.
    """
    draw = functools.partial(init, config)
    key = jax.eval_shape(lambda: jax.random.key(0))
    if mesh is None:
        return jax.eval_shape(draw, key)
    with jax.set_mesh(mesh):
        return sharding.concretize(jax.eval_shape(draw, key), mesh)


def check(
    config: ModelConfig,
    entries: Iterable[Entry],
    checkpoint: Checkpoint,
    ignored: re.Pattern[str],
) -> None:
    """Compares names and shapes of the headers with what the decoder needs.

    Args:
      ignored: matches names of tensors that may be there and are not read.

    Raises:
      ValueError: if a tensor is missing, unexpected or of another shape.
    """
    sizes = layout.axis_sizes(config)
    wanted = {
        name: layout.file_shape(entry.equation, sizes)
        for entry in entries
        for name in _names(entry, config)
    }
    missing = [name for name in wanted if name not in checkpoint.tensors]
    if missing:
        raise ValueError(
            f"{checkpoint.path}: {len(missing)} of {len(wanted)} tensors are missing: "
            f"{_some(missing)}. It holds {_some(sorted(checkpoint.tensors))}"
        )
    for name, shape in wanted.items():
        stored = checkpoint.tensors[name]
        if stored.shape != shape:
            raise ValueError(
                f"{stored.file}: tensor {name!r} has shape {stored.shape}, its "
                f"settings need {shape}"
            )
    for name, stored in checkpoint.tensors.items():
        if name not in wanted and not ignored.fullmatch(name):
            raise ValueError(
                f"{stored.file}: unexpected tensor {name!r}; the decoder of these "
                "settings has no place for it"
            )


def place(
    config: ModelConfig,
    entries: Iterable[Entry],
    checkpoint: Checkpoint,
    abstract: Params,
) -> Params:
    """Reads every leaf, laid out and typed as its counterpart in `abstract`.

    The host holds one shard of one leaf at a time and reads of each tensor what its own
    devices need; tensors are converted as they are read.
    """
    params: dict[str, Any] = {}
    for entry in entries:
        *path, last = entry.leaf.split("/")
        wanted, branch = abstract, params
        for name in path:
            wanted, branch = wanted[name], branch.setdefault(name, {})
        branch[last] = _place_leaf(config, entry, checkpoint, wanted[last])
    return params


def _place_leaf(
    config: ModelConfig,
    entry: Entry,
    checkpoint: Checkpoint,
    leaf: jax.ShapeDtypeStruct,
) -> jax.Array:
    read = functools.partial(_read_part, config, entry, checkpoint, leaf)
    if leaf.sharding is None:
        return jax.device_put(read((slice(None),) * leaf.ndim))
    # Not `jax.make_array_from_callback`: it collects the shards of all devices on the
    # host before it moves any.
    devices = leaf.sharding.addressable_devices_indices_map(leaf.shape)
    owners: dict[tuple[Any, ...], list[Any]] = {}
    for device, index in devices.items():
        assert index is not None, "a device of the sharding has a part of every array"
        key = tuple(part.indices(n) for part, n in zip(index, leaf.shape, strict=True))
        owners.setdefault(key, []).append(device)
    shards = []
    for key, group in owners.items():
        part = read(tuple(slice(*bounds) for bounds in key))
        copies = [jax.device_put(part, device) for device in group]
        shards += jax.block_until_ready(copies)
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, shards)


def _read_part(
    config: ModelConfig,
    entry: Entry,
    checkpoint: Checkpoint,
    leaf: jax.ShapeDtypeStruct,
    index: tuple[slice, ...],
) -> np.ndarray:
    sizes, names = layout.axis_sizes(config), _names(entry, config)
    stacked = entry.leaf.startswith(f"{STACKED}/")
    names, inner = (names[index[0]], index[1:]) if stacked else (names, index)
    wanted = layout.file_index(entry.equation, sizes, inner)

    def read(name: str) -> np.ndarray:
        numbers = checkpoint.read(name, wanted)
        return layout.to_leaf(entry.equation, sizes, numbers, inner)

    bounds = zip(index, leaf.shape, strict=True)
    # Always a copy: arrays on a CPU may share memory with what they are made of, and a
    # reader may return the memory-mapped file itself.
    part = np.empty([len(range(*s.indices(size))) for s, size in bounds], leaf.dtype)
    for i, name in enumerate(names):
        part[i if stacked else ...] = read(name)
    return part


def _names(entry: Entry, config: ModelConfig) -> list[str]:
    """Of all layers, or the one of an entry outside the stack."""
    if not entry.leaf.startswith(f"{STACKED}/"):
        return [entry.name]
    return [entry.name.format(layer=layer) for layer in range(config.num_layers)]


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
