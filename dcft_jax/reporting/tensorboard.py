"""Scalars in a folder for TensorBoard.

Not by the `SummaryWriter` of tensorboardX: on a full disk its thread dies, and then its
queue fills and the run waits for ever.
"""

import math
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from dcft_jax.reporting.patient_file import PatientFile


class TensorboardWriter:
    """Values that are not finite are left out; on a full disk rows wait for space."""

    def __init__(self, folder: Path, resume_step: int | None = None):
        from tensorboardX.proto import event_pb2  # slow to import, not always wanted

        folder.mkdir(parents=True, exist_ok=True)
        purge_step = 0 if resume_step is None else resume_step + 1
        # With the step, or a quick restart would write to the same file.
        name = f"{int(time.time())}.{socket.gethostname()}.{purge_step}"
        self._file = PatientFile(folder / f"events.out.tfevents.{name}")
        self._make_event = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
        start = event_pb2.SessionLog.START  # pyright: ignore[reportAttributeAccessIssue]
        self._append(file_version="brain.Event:2")
        # TensorBoard hides what earlier files hold from this step on.
        self._append(step=purge_step, session_log={"status": start})

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        values = [
            {"tag": key, "simple_value": value}
            for key, value in metrics.items()
            if math.isfinite(value)
        ]
        self._append(step=step, summary={"value": values})

    def close(self) -> None:
        self._file.close()

    def _append(self, **fields) -> None:
        event = self._make_event(wall_time=time.time(), **fields)
        self._file.append(_framed(event.SerializeToString()))


def _framed(data: bytes) -> bytes:
    """As TFRecord: length, its checksum, the data, its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(data))
    checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
    return b"".join((length, next(checksums), data, next(checksums)))
