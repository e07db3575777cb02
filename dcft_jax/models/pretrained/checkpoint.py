"""A checkpoint as its headers describe it, and reading a part of one tensor."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Stored(NamedTuple):
    """One tensor of a file."""

    file: Path
    shape: tuple[int, ...]


class Checkpoint(NamedTuple):
    """Nothing but headers has been read; the files are memory-mapped."""

    path: Path  # the folder, or the GGUF file
    tensors: Mapping[str, Stored]
    read: Callable[[str, tuple[slice, ...]], np.ndarray]  # name, part -> numbers
    data_starts: Mapping[Path, int]  # of each file: where its header ends
