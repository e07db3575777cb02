"""What sources of JSON rows in files share: their fields and their splits."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from dcft_jax.data.example import SourceData
from dcft_jax.data.sources.collect import Parsed, Records, collect_splits
from dcft_jax.data.sources.fields import source_fields
from dcft_jax.data.sources.files import find_files
from dcft_jax.data.sources.levels import level_reader
from dcft_jax.data.sources.shapes import check_shape, decode_json, parse_row

_FIELDS = {"train": "path", "mix_val": "mix_val_path", "test": "test_path"}


def load_json_files(
    source: ConfigDict, read: Callable[[Path], Iterator[bytes]], *, on_bad_row: str
) -> SourceData:
    """Examples of all files that a source names.

    The fields of `source` are `path`, a file or a glob; optionally `mix_val_path` and
    `test_path`, whose absence has held-out examples split off from `path`;
    `max_examples`, how many to read of `path`; `shape` (see `shapes`);
    `single_reference`, whether every row has exactly one right reply;
    `difficulty_field`, which field of a row says how hard it is; and
    `difficulty_levels`, the values of that field, easiest first, if they are names.

    Args:
        source: the user's fields.
        read: the records of a file, as UTF-8 JSON; blank ones are passed over.
        on_bad_row: "fail" | "skip".

    Raises:
        FileNotFoundError: a path matches no file.
        ValueError: unknown field or shape, a malformed row under "fail" (names file
            and 1-based row), or a path without a usable row.
    """
    fields = source_fields(
        source,
        required=("path",),
        mix_val_path="",
        test_path="",
        max_examples=None,
        shape="auto",
        single_reference=False,
        difficulty_field="",
        difficulty_levels=(),
    )
    check_shape(fields.shape)
    records = {}
    for split, field in _FIELDS.items():
        if pattern := getattr(fields, field):
            located = _located(find_files(pattern, field), read)
            most = fields.max_examples if split == "train" else None
            records[split] = Records(f"{field}={pattern!r}", located, most)
    return collect_splits(
        records,
        _parser(fields.shape, fields.difficulty_field, fields.difficulty_levels),
        source=fields.kind,
        single_reference=fields.single_reference,
        on_bad_row=on_bad_row,
    )


def _parser(shape: str, field: str, levels: Sequence[str]) -> Callable[[bytes], Parsed]:
    read_level = level_reader(field, levels)

    def parse(record: bytes) -> Parsed:
        row = decode_json(record)
        return parse_row(row, shape), read_level(row)

    return parse


def _located(
    files: list[Path], read: Callable[[Path], Iterator[bytes]]
) -> Iterator[tuple[str, bytes]]:
    for file in files:
        for number, record in enumerate(read(file), start=1):
            if record.strip():
                yield f"{file}:{number}", record
