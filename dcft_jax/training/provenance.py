"""What made a checkpoint, against what goes on from it."""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import dcft_jax


@cache
def code_hash() -> str:
    """Eight hex digits of the Python files of this package, as they are."""
    root, digest = Path(dcft_jax.__file__).parent, hashlib.blake2b(digest_size=4)
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each version, and the code, that is another now.

    Args:
      saved: `Run.metadata` of a checkpoint; old ones do not tell all.
      now: that of this run.
    """
    before, after = (
        {**one.get("versions", {}), "dcft_jax's code": one.get("code")}
        for one in (saved, now)
    )
    return [
        f"{name} {before[name]} -> {value}"
        for name, value in after.items()
        if before.get(name) not in (None, value)
    ]
