"""Rows on a full disk: none is lost, doubled or torn while there is hope for space."""

import errno
from pathlib import Path

import pytest

from dcft_jax.reporting import jsonl


class Disk:
    """A file on a disk with so many free bytes."""

    def __init__(self, file, free: int):
        self.file, self.free, self.number = file, free, errno.ENOSPC

    def write(self, data: bytes) -> int:
        if not self.free:
            raise OSError(self.number, "no more")
        written = self.file.write(data[: self.free])
        self.free -= written
        return written

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


def writer_on(path: Path, free: int) -> tuple[jsonl.JsonlWriter, Disk]:
    writer = jsonl.JsonlWriter(path)
    disk = Disk(writer._file._file, free)
    writer._file._file = disk  # type: ignore[assignment]
    return writer, disk


def test_rows_wait_for_space_in_their_order(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    writer, disk = writer_on(path, free=50)
    for step in range(4):
        writer.write(step, {"loss": 0.5})
    assert [row["step"] for row in jsonl.read_rows(path)] == [0]
    disk.free = 10_000
    writer.write(4, {"loss": 0.5})
    assert [row["step"] for row in jsonl.read_rows(path)] == [0, 1, 2, 3, 4]
    writer.close()


def test_rows_that_stay_unwritten_are_returned_and_other_errors_raised(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    writer, disk = writer_on(path, free=50)
    for step in range(3):
        writer.write(step, {"loss": 0.5})
    assert [(row["step"], row["loss"]) for row in writer.close()] == [
        (1, 0.5),
        (2, 0.5),
    ]
    assert [row["step"] for row in jsonl.read_rows(path)] == [0]
    disk.number = errno.EIO
    with pytest.raises(OSError, match="no more"):
        writer.write(1, {"loss": 0.5})
