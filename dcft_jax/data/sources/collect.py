"""Turns records into examples and decides about the malformed ones."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from dcft_jax.data.example import Example, SourceData
from dcft_jax.data.sources.levels import Metadata
from dcft_jax.data.sources.shapes import Messages, RowError

Record = TypeVar("Record")
Parsed = tuple[Messages, Metadata]


@dataclass(frozen=True)
class Records(Generic[Record]):
    """Records of one split, each with the place that messages name."""

    label: str  # the field and its value, e.g. "path='train.jsonl'"
    located: Iterable[tuple[str, Record]]
    max_examples: int | None = None


def collect_splits(
    records: Mapping[str, Records[Record]],
    parse: Callable[[Record], Parsed],
    *,
    source: str,
    single_reference: bool,
    on_bad_row: str,
) -> SourceData:
    """Examples of a source whose splits are "train", maybe "mix_val" and "test".

    "train" becomes "all" if another split is missing and has to come out of it.

    Args:
        records: split -> its records.
        parse: messages and metadata of a record; raises RowError for a malformed one.
        source: for `Example.source`.
        single_reference: for `Example.single_reference`.
        on_bad_row: "fail" raises at the first malformed record, "skip" counts it.

    Raises:
        ValueError: a malformed record under "fail", or a split without usable record.
    """
    splits: dict[str, list[Example]] = {}
    skipped = 0
    for split, split_records in records.items():
        rows, bad = _collect(split_records, parse, on_bad_row)
        splits[split] = [
            Example(messages, source, single_reference, metadata=metadata)
            for messages, metadata in rows
        ]
        skipped += bad
    if len(splits) < 3:
        splits["all"] = splits.pop("train")
    return SourceData(splits, skipped)


def _collect(
    records: Records[Record], parse: Callable[[Record], Parsed], on_bad_row: str
) -> tuple[list[Parsed], int]:
    if records.max_examples is not None and records.max_examples < 1:
        raise ValueError(f"max_examples={records.max_examples} must be at least 1")
    rows: list[Parsed] = []
    skipped = 0
    for where, record in records.located:
        try:
            rows.append(parse(record))
        except RowError as error:
            if on_bad_row != "skip":
                raise ValueError(
                    f"{where}: {error}; mend the row or set data.on_bad_row='skip'"
                ) from error
            skipped += 1
        if len(rows) == records.max_examples:
            break
    if not rows:
        raise ValueError(
            f"{records.label} has no usable row ({skipped} malformed ones skipped)"
        )
    return rows, skipped
