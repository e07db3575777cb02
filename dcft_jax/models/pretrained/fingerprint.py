"""A hash that tells checkpoints apart without reading them whole."""

import hashlib
from pathlib import Path

from dcft_jax.models.pretrained.checkpoint import Checkpoint

BLOCKS, BLOCK = 256, 4096  # samples of each file, and their bytes


def content_hash(checkpoint: Checkpoint) -> str:
    """SHA-256, in hexadecimal, of a sample of the weight files in order of their names.

    It covers of every file the name, the size, all of the header (names, shapes, types,
    places), and 256 blocks of 4096 bytes, evenly spaced over the data (all of it up to
    1 MiB). Other training gives another hash; a flipped bit between the blocks does
    not: this identifies a base model, it does not protect it.
    """
    digest = hashlib.sha256()
    for path, start in sorted(checkpoint.data_starts.items()):
        _update(digest, path, start)
    return digest.hexdigest()


def _update(digest, path: Path, start: int) -> None:
    size = path.stat().st_size
    digest.update(f"{path.name}\0{size}\0".encode())
    with path.open("rb") as file:
        digest.update(file.read(start))
        if size - start <= BLOCKS * BLOCK:
            digest.update(file.read())
            return
        for i in range(BLOCKS):
            # The last block ends where the file does.
            file.seek(start + (size - start - BLOCK) * i // (BLOCKS - 1))
            digest.update(file.read(BLOCK))
