"""Batches: rows of the streams for training, all rows in order for evaluation."""

from collections.abc import Iterator, Sequence

import grain
import numpy as np

from dcft_jax.data.rows import ROW_FIELDS, Rows

Batch = dict[str, np.ndarray]


def next_batch(
    streams: Sequence[grain.MapDataset],
    position_K: np.ndarray,
    counts_K: np.ndarray,
    rows_per_slot: int,
    slots: slice | None = None,
) -> tuple[Batch, np.ndarray]:
    """The next global batch, or this process's part of it.

    Slots are ordered by ability: first the `counts_K[0]` slots of ability 0, then those
    of ability 1, and so on. Positions advance by all slots whichever part is read, so
    any number of processes see the same global batch.

    Args:
        streams: one per ability, from `make_stream`.
        position_K: int64; rows consumed of each stream.
        counts_K: slots of each ability in this batch; they sum to S.
        rows_per_slot: B.
        slots: the slots to read; None for all.

    Returns:
        `tokens_SBL`, `loss_mask_SBL`, `segments_SBL`, `positions_SBL` and `ability_S`
        (int32), and the new `position_K`.

    Raises:
        ValueError: the arguments disagree about K, or no slot is selected.
    """
    counts_K = np.asarray(counts_K)
    _check(streams, position_K, counts_K)
    ability_S, first_row_S = _slot_rows(position_K, counts_K, rows_per_slot)
    chosen = slice(None) if slots is None else slots
    items = [
        streams[k][int(first + b)]
        for k, first in zip(ability_S[chosen], first_row_S[chosen], strict=True)
        for b in range(rows_per_slot)
    ]
    if not items:
        raise ValueError(f"slots={slots} selects none of the {len(ability_S)} slots")
    batch = {f"{name}_SBL": _stack(items, name, rows_per_slot) for name in ROW_FIELDS}
    batch["ability_S"] = ability_S[chosen]
    return batch, np.asarray(position_K, np.int64) + counts_K * rows_per_slot


def _slot_rows(position_K, counts_K, rows_per_slot: int):
    """Ability of every slot, and the index in its stream of the slot's first row."""
    ability_S = np.repeat(np.arange(len(counts_K), dtype=np.int32), counts_K)
    first_slot_K = np.cumsum(counts_K) - counts_K
    nth_S = np.arange(len(ability_S)) - first_slot_K[ability_S]
    return ability_S, np.asarray(position_K)[ability_S] + nth_S * rows_per_slot


def _stack(items: list[Batch], name: str, rows_per_slot: int) -> np.ndarray:
    stacked = np.stack([item[name] for item in items])
    return stacked.reshape(-1, rows_per_slot, stacked.shape[-1])


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
    return np.pad(array, ((0, missing), (0, 0)), constant_values=value)
