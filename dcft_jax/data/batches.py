"""Batches: rows of the streams for training, all rows in order for evaluation."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from dcft_jax.data.rows import ROW_FIELDS, Rows

Batch = dict[str, np.ndarray]


def next_batch(
    streams: Sequence[grain.MapDataset],
    position_K: np.ndarray,
    counts_K: np.ndarray,
    rows_per_slot: int,
    needed_SB: np.ndarray | None = None,
) -> tuple[Batch, np.ndarray]:
    """The next global batch.

    Slots are ordered by ability: first the `counts_K[0]` slots of ability 0, then those
    of ability 1, and so on. Positions advance by all of them whichever rows are read,
    so any number of processes see the same global batch.

    Args:
        streams: one per ability, from `make_stream`.
        position_K: int64; rows consumed of each stream.
        counts_K: slots of each ability in this batch; they sum to S.
        rows_per_slot: B.
        needed_SB: bool; the rows to read, others are zero; None for all.

    Returns:
        `tokens_SBL`, `loss_mask_SBL`, `segments_SBL`, `positions_SBL` and `ability_S`
        (int32), and the new `position_K`.

    Raises:
        ValueError: the arguments disagree about K, S or B.
    """
    counts_K = np.asarray(counts_K)
    _check(streams, position_K, counts_K)
    ability_S, first_row_S = _slot_rows(position_K, counts_K, rows_per_slot)
    shape = (len(ability_S), rows_per_slot)
    needed_SB = np.ones(shape, bool) if needed_SB is None else needed_SB
    if needed_SB.shape != shape:
        raise ValueError(f"needed_SB of shape {needed_SB.shape} must be of {shape}")
    rows: dict[tuple[int, int], Any] = {
        (s, b): streams[int(ability_S[s])][int(first_row_S[s]) + b]
        for s, b in np.argwhere(needed_SB).tolist()
    }
    some: Any = next(iter(rows.values())) if rows else streams[0][0]
    batch = {
        f"{name}_SBL": _scatter(rows, shape, name, some[name]) for name in ROW_FIELDS
    }
    batch["ability_S"] = ability_S
    return batch, np.asarray(position_K, np.int64) + counts_K * rows_per_slot


def _slot_rows(position_K, counts_K, rows_per_slot: int):
    """Ability of every slot, and the index in its stream of the slot's first row."""
    ability_S = np.repeat(np.arange(len(counts_K), dtype=np.int32), counts_K)
    first_slot_K = np.cumsum(counts_K) - counts_K
    nth_S = np.arange(len(ability_S)) - first_slot_K[ability_S]
    return ability_S, np.asarray(position_K)[ability_S] + nth_S * rows_per_slot


def _scatter(
    rows: Mapping[tuple[int, int], Any],
    shape: tuple[int, int],
    name: str,
    one: np.ndarray,
) -> np.ndarray:
    """A field of the rows at their places, zero elsewhere; `one` is that of any row."""
    # Pages of zeros that nobody touches take no memory.
    whole_SBL = np.zeros((*shape, *one.shape), one.dtype)
    for place, row in rows.items():
        whole_SBL[place] = row[name]
    return whole_SBL


def _check(streams, position_K, counts_K) -> None:
    if not len(streams) == len(position_K) == len(counts_K):
        raise ValueError(
            f"{len(streams)} streams, {len(position_K)} positions and "
            f"{len(counts_K)} counts: there must be one of each per ability"
        )
    if not np.issubdtype(counts_K.dtype, np.integer) or (counts_K < 0).any():
        raise ValueError(f"counts_K={counts_K} must be integers, none negative")


def eval_batches(rows: Rows, rows_per_batch: int) -> Iterator[Batch]:
    """All rows once, in order, as batches of one shape.

    Yields `tokens_NL`, `loss_mask_NL`, `segments_NL`, `positions_NL`, `scored_NM` and
    `example_NM` with N = `rows_per_batch`. The last batch is filled up with empty rows:
    segment 0, no loss, example -1.
    """
    empty = dict(example_NM=-1)
    names = [*(f"{name}_NL" for name in ROW_FIELDS), "scored_NM", "example_NM"]
    for start in range(0, len(rows), rows_per_batch):
        part = slice(start, start + rows_per_batch)
        yield {
            name: _fill_up(
                getattr(rows, name)[part], rows_per_batch, empty.get(name, 0)
            )
            for name in names
        }


def _fill_up(array: np.ndarray, rows: int, value: int) -> np.ndarray:
    missing = rows - len(array)
    if not missing:  # on disk until somebody reads it
        return array
    return np.pad(array, ((0, missing), (0, 0)), constant_values=value)
