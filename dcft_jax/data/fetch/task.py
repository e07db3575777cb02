"""What is known of a test set before it is fetched, and how its files are read."""

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from dcft_jax.data.archive import Archive

Document = dict[str, Any]
Row = dict[str, Any]
Documents = Iterator[tuple[str, Document]]  # each with the place that messages name


class Task(NamedTuple):
    """A test set, and where it comes from.

    Attributes:
        archive: that holds it.
        members: its files there.
        read: content of a file, and its name for messages -> documents of the set.
        convert: document, file -> a row of `dcft_jax.evaluation.items`; None for a
            document that the task leaves out.
        rows: how many the set has.
        licence: of the text, by SPDX where it has a name there.
        licence_source: who says so.
        upstream: where the authors publish the set.
        split: of the set. All are public test sets or stand for one: never train on
            them.
        note: what to know before using or passing on the rows.
    """

    name: str
    archive: Archive
    members: tuple[str, ...]
    read: Callable[[bytes, str], Documents]
    convert: Callable[[Document, str], Row | None]
    rows: int
    licence: str
    licence_source: str
    upstream: str
    split: str
    note: str = ""


def packed_docs(content: bytes, place: str) -> Documents:
    """JSON Lines compressed with gzip; the field `doc` of a line is the document.

    Some files repeat it for every choice.
    """
    for number, line in enumerate(gzip.decompress(content).splitlines(), 1):
        where, record = f"{place}:{number}", json.loads(line)
        if "doc" not in record:
            raise ValueError(f"{where}: the row has no field 'doc'")
        yield where, record["doc"]
