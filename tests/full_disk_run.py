"""Trains as `dcft_jax.main` does, with no space for some files of one process.

python tests/full_disk_run.py PROCESS PATTERN [options of dcft_jax.main]: files whose
path has the regular expression PATTERN cannot be opened for writing in that process.
"""

import builtins
import errno
import io
import re
import sys
from collections.abc import Callable

from absl import app

from dcft_jax import main


def fill_disk(pattern: str, patch: Callable = setattr) -> None:
    """Files whose path has the pattern cannot be opened for writing any more."""
    open_file = builtins.open

    def open_if_space(file, mode="r", *args, **kwargs):
        if not mode.startswith("r") and re.search(pattern, str(file)):
            raise OSError(errno.ENOSPC, "No space left on device", str(file))
        return open_file(file, mode, *args, **kwargs)

    patch(builtins, "open", open_if_space)
    patch(io, "open", open_if_space)  # which pathlib calls


if __name__ == "__main__":
    _, process, pattern, *options = sys.argv
    if f"--process_id={process}" in options:
        fill_disk(pattern)
    sys.argv = ["dcft_jax.main", *options]
    app.run(main.main)
