"""Reads the fields of a source, so that a typo cannot pass unnoticed."""

from types import SimpleNamespace
from typing import Any

from ml_collections import ConfigDict


def source_fields(
    source: ConfigDict, *, required: tuple[str, ...] = (), **defaults: Any
) -> SimpleNamespace:
    """The fields of a source, as attributes, with defaults filled in.

    Raises:
        ValueError: a field that this kind does not have, or a required one that is
            missing or empty.
    """
    known = {"kind", *required, *defaults}
    if unknown := sorted(set(source) - known):
        raise ValueError(
            f"a {source.kind} source has no field {unknown[0]!r}; "
            f"its fields are {sorted(known)}"
        )
    for name in required:
        if not source.get(name):
            raise ValueError(f"a {source.kind} source needs the field {name!r}")
    return SimpleNamespace(**{**defaults, **dict(source)})
