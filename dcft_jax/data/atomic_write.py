"""Files that readers see whole or not at all."""

import os
import uuid
from pathlib import Path


def atomic_write(path: str | os.PathLike, content: bytes | str) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    partial.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.replace(partial, path)
