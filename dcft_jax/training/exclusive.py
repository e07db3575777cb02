"""One process at a time trains in a work directory: two would mix their records, and
the second clears what the first is saving.
"""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from dcft_jax.distributed import is_first

LOCK = "run.lock"
# What file systems answer that have no locks; there nobody is kept out.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class InUseError(OSError):
    """Another run's process trains in the work directory."""


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Holds the folder; its lock ends with the process, however that ends.

    Of several processes that are one run, the first holds it.

    Raises:
      InUseError: another holds it; the message says which.
    """
    if not is_first():
        yield
        return
    with (workdir / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read() or "another process"
            raise InUseError(
                f"--workdir {workdir}: {who} trains in it; wait for it, stop it, or "
                "name another folder"
            ) from None
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
