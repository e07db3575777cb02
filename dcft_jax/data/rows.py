"""Packed rows of one ability and split, kept on disk as memory-mapped arrays."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dcft_jax.data.atomic_write import atomic_folder

# Arrays that make up a training row, without their axes.
ROW_FIELDS = ("tokens", "loss_mask", "segments", "positions")
_ARRAYS = (*(f"{name}_NL" for name in ROW_FIELDS), "scored_NM", "example_NM")
_META = "rows.json"


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of packed examples. N rows, L tokens per row, at most M examples per row.

    Attributes:
        tokens_NL: int32.
        loss_mask_NL: bool; True where the token itself belongs to a trained reply.
        segments_NL: int32; 0 is padding, 1, 2, ... are the examples of the row.
        positions_NL: int32; restart at 0 in every segment.
        scored_NM: bool; segment m + 1 exists, is whole and has a single right reply.
        example_NM: int32; index of the example in its split, -1 for none.
        num_truncated: examples that lost their end because they exceed L.
        longest: tokens of the longest example before truncation.
    """

    tokens_NL: np.ndarray
    loss_mask_NL: np.ndarray
    segments_NL: np.ndarray
    positions_NL: np.ndarray
    scored_NM: np.ndarray
    example_NM: np.ndarray
    num_truncated: int
    longest: int

    def __len__(self) -> int:
        return len(self.tokens_NL)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """One row as a dict of arrays of length L, keyed by `ROW_FIELDS`."""
        return {name: getattr(self, f"{name}_NL")[index] for name in ROW_FIELDS}

    @property
    def num_examples(self) -> int:
        return int((self.example_NM >= 0).sum())

    @property
    def num_scored(self) -> int:
        return int(self.scored_NM.sum())

    @property
    def num_tokens(self) -> int:
        """Tokens of examples, padding not counted."""
        return int((self.segments_NL > 0).sum())

    @property
    def num_response_tokens(self) -> int:
        return int(self.loss_mask_NL.sum())

    @property
    def max_response_tokens(self) -> int:
        """Of one row."""
        return int(self.loss_mask_NL.sum(axis=1).max())


def save_rows(rows: Rows, folder: str | os.PathLike) -> None:
    """Writes `folder` in one step: it exists whole or not at all.

    If another process was first, its folder stays; the name is a hash of the
    content, so the two are equal.
    """
    meta = dict(num_truncated=rows.num_truncated, longest=rows.longest)
    try:
        with atomic_folder(folder) as partial:
            for name in _ARRAYS:
                np.save(partial / f"{name}.npy", getattr(rows, name))
            (partial / _META).write_text(json.dumps(meta))
    except OSError:
        if not has_rows(folder):
            raise


def has_rows(folder: str | os.PathLike) -> bool:
    return (Path(folder) / _META).is_file()


def hash_rows(rows: Rows) -> str:
    """Equal for rows whose arrays are equal, and only for them."""
    digest = hashlib.blake2b(digest_size=16)
    for name in _ARRAYS:
        array = getattr(rows, name)
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def load_rows(folder: str | os.PathLike) -> Rows:
    """Opens rows that `save_rows` wrote; arrays are read when they are used.

    Raises:
        FileNotFoundError: there are no rows in `folder`.
    """
    folder = Path(folder)
    arrays = {n: np.load(folder / f"{n}.npy", mmap_mode="r") for n in _ARRAYS}
    return Rows(**arrays, **json.loads((folder / _META).read_text()))
