"""The state of a population between two chunks of steps, on disk."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.meta.plan import Plan, Training

Results = dict[str, np.ndarray]


def state_key(
    base: Any, bank: dict[str, np.ndarray], plan: Plan, training: Training
) -> str:
    """Of all that the result depends on."""
    digest = hashlib.blake2b(repr(training).encode(), digest_size=16)
    for array in jax.tree.leaves((base, bank, plan)):
        array = np.ascontiguousarray(array)
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(array.data)
    return digest.hexdigest()


def save_state(path: Path, key: str, step: int, state: Any, results: Any) -> None:
    leaves = jax.tree.leaves(state)
    arrays: dict[str, Any] = {f"leaf/{i}": np.asarray(x) for i, x in enumerate(leaves)}
    for stop, found in results.items():
        arrays |= {f"at/{stop}/{name}": x for name, x in found.items()}
    buffer = io.BytesIO()
    np.savez(buffer, key=np.array(key), step=np.array(step), **arrays)
    atomic_write(path, buffer.getvalue())


def load_state(path: Path, key: str, like: Any) -> tuple[int, Any, dict[int, Results]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"{path} is no state of a population: {error}") from error
    if "key" not in arrays or str(arrays["key"]) != key:
        raise ValueError(
            f"{path} is the state of other models, data or settings; remove it, or "
            "give another path"
        )
    leaves = [arrays[f"leaf/{i}"] for i in range(len(jax.tree.leaves(like)))]
    results: dict[int, Results] = {}
    for name, array in arrays.items():
        if name.startswith("at/"):
            _, stop, what = name.split("/")
            results.setdefault(int(stop), {})[what] = array
    state = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return int(arrays["step"]), state, results
