"""Files and folders that readers see whole or not at all, also after power was lost."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


def atomic_write(path: str | os.PathLike, content: bytes | str) -> None:
    """Everybody may read the file, or fewer, as the umask says."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _keep_entry(path.parent)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A folder beside `path` that gets its name if the body succeeds, and else goes.

    Raises:
      OSError: something is there under that name; an empty folder is not.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    partial.mkdir()
    try:
        yield partial
        for folder, _, files in os.walk(partial, topdown=False):
            for name in files:
                _keep_content(Path(folder) / name)
            _keep_entry(Path(folder))
        os.replace(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _keep_entry(path.parent)


def _keep_content(file: Path) -> None:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def _keep_entry(folder: Path) -> None:
    """The new name of a file is in its folder, which has to reach the disk as well."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
