"""JSON Lines: one JSON object per line, plain or compressed with gzip."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from dcft_jax.data.example import SourceData
from dcft_jax.data.sources.json_files import load_json_files

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some editors put it before the first line


def load_jsonl(
    source: ConfigDict, *, held_out: int, seed: int, on_bad_row: str
) -> SourceData:
    """Examples of `.jsonl` and `.jsonl.gz` files; see `load_json_files`."""
    del held_out, seed  # the rows are given; splits.py holds some out
    return load_json_files(source, _lines, on_bad_row=on_bad_row)


def _lines(path: Path) -> Iterator[bytes]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        try:
            for index, line in enumerate(file):
                if index == 0:
                    line = line.removeprefix(_BYTE_ORDER_MARK)
                    _refuse_array(line, path)
                yield line
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a whole gzip file ({error})") from error


def _refuse_array(first_line: bytes, path: Path) -> None:
    if first_line.lstrip().startswith(b"["):
        raise ValueError(
            f"{path} is one JSON array; write one object per line, "
            f"e.g. jq -c '.[]' {path.name} > {path.stem}.jsonl"
        )
