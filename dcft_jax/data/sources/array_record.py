"""ArrayRecord files whose records are JSON objects in UTF-8."""

from collections.abc import Iterator
from pathlib import Path

from array_record.python.array_record_data_source import ArrayRecordDataSource
from ml_collections import ConfigDict

from dcft_jax.data.example import SourceData
from dcft_jax.data.sources.json_files import load_json_files


def load_array_record(
    source: ConfigDict, *, held_out: int, seed: int, on_bad_row: str
) -> SourceData:
    """Examples of ArrayRecord files; see `load_json_files`.

    The name in an error message is file:record, counted from 1.
    """
    del held_out, seed  # the rows are given; splits.py holds some out
    return load_json_files(source, _records, on_bad_row=on_bad_row)


def _records(path: Path) -> Iterator[bytes]:
    try:
        with ArrayRecordDataSource(str(path)) as records:
            for index in range(len(records)):
                yield records[index]
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable ArrayRecord file: {error}"
        ) from error
