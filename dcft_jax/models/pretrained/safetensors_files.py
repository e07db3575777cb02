"""Folders of safetensors files: one, or several with an index."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from dcft_jax.models.pretrained.checkpoint import Checkpoint, Stored

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")


def open_safetensors(folder: Path) -> Checkpoint:
    """Opens all files and reads their headers.

    Raises:
      FileNotFoundError: if the folder, or a file of its index, is not there.
      ValueError: if a file is cut off or is no safetensors file, if it lacks a tensor
        of the index, or holds numbers of a type we do not read.
    """
    opened, tensors, data_starts = {}, {}, {}
    for path in _files(folder):
        header, data_starts[path] = _read_header(path)
        for name, entry in header.items():
            if entry["dtype"] not in FLOATS:
                raise ValueError(
                    f"{path}: tensor {name!r} has type {entry['dtype']}; only "
                    f"{FLOATS} are read (quantised weights: use a GGUF file)"
                )
            tensors[name] = Stored(path, tuple(entry["shape"]))
        try:
            opened[path] = safe_open(path, framework="np")
        except SafetensorError as error:
            raise ValueError(f"{path}: {error}") from error
    _check_index(folder, tensors)

    def read(name: str, part: tuple[slice, ...]) -> np.ndarray:
        return opened[tensors[name].file].get_slice(name)[part]

    return Checkpoint(folder, tensors, read, data_starts)


def _files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        names = sorted(set(_weight_map(folder).values()))
    else:
        names = [SINGLE]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        found = sorted(path.name for path in folder.glob("*") if path.is_file())
        raise FileNotFoundError(
            f"{folder}: {missing} not found; the folder holds {found}. Weights are "
            f"read from {SINGLE} or the files of {INDEX}, never from pickles (.bin)"
        )
    return [folder / name for name in names]


def _weight_map(folder: Path) -> dict[str, str]:
    path = folder / INDEX
    try:
        return json.loads(path.read_text())["weight_map"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no index with a weight_map: {error!r}") from error


def _check_index(folder: Path, tensors: dict[str, Stored]) -> None:
    if not (folder / INDEX).is_file():
        return
    for name, file in _weight_map(folder).items():
        if name not in tensors or tensors[name].file.name != file:
            raise ValueError(
                f"{folder / INDEX}: tensor {name!r} is said to be in {file}, which "
                "does not hold it; download the files again"
            )


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Tensors of the header, and where the data starts.

    The format is 8 bytes of length (little-endian), that many of JSON, and the data;
    https://huggingface.co/docs/safetensors. `safe_open` checks it in full, but does not
    say which tensor a file that is cut off lacks.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        start = 8 + length
        if size < max(start, 8):
            raise ValueError(
                f"{path}: cut off within its header ({size} bytes), or no safetensors "
                "file; download it again"
            )
        try:
            header = json.loads(file.read(length))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: no safetensors header: {error}") from error
    header.pop("__metadata__", None)
    for name, entry in header.items():
        end = start + entry["data_offsets"][1]
        if end > size:
            raise ValueError(
                f"{path}: tensor {name!r} ends at byte {end}, the file at {size}; it "
                "is cut off, download it again"
            )
    return header, start
