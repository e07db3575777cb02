"""A folder on the machine's file system that a program may fill with anything."""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator

_OPEN = stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO


@contextlib.contextmanager
def scratch_folder() -> Iterator[str]:
    """An empty folder that any user may write; gone afterwards, with all in it."""
    path = tempfile.mkdtemp(prefix="dcft-sandbox-")
    try:
        os.chmod(path, _OPEN)
        yield path
    finally:
        remove(path)


def remove(path: str) -> None:
    """Removes a folder whatever its permissions; symbolic links are not followed."""
    os.chmod(path, stat.S_IRWXU)
    for folder, names, _ in os.walk(path, topdown=True, followlinks=False):
        for name in names:
            child = os.path.join(folder, name)
            # Someone else's folder cannot be changed; root need not.
            if not os.path.islink(child) and os.stat(child).st_uid == os.geteuid():
                os.chmod(child, stat.S_IRWXU)
    shutil.rmtree(path)
