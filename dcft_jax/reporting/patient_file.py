"""A file whose records wait for space while the disk is full."""

import errno
from pathlib import Path


class PatientFile:
    """Records are appended whole and in order, each at once; on a full disk they wait
    in memory, and every later one tries again.
    """

    def __init__(self, path: Path):
        self._file = path.open("ab", buffering=0)  # a write says how much it wrote
        self._waiting: list[bytes] = []
        self._written = 0  # bytes of the first of them

    def append(self, record: bytes) -> None:
        """Raises OSError if it cannot be written for another reason."""
        self._waiting.append(record)
        try:
            self._write_waiting()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise

    def _write_waiting(self) -> None:
        while self._waiting:
            record = self._waiting[0]
            while self._written < len(record):
                self._written += self._file.write(record[self._written :])
            self._waiting.pop(0)
            self._written = 0

    def close(self) -> list[bytes]:
        """Returns the records for which there was no space, the first perhaps half
        written.
        """
        with self._file:
            try:
                self._write_waiting()
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
        return self._waiting
