"""What a config is: its plain form, its hash, and how two of them differ."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

# Fields that may change between two starts of one run: they steer what is
# shown and kept, not what is computed.
FREE_FIELDS = ("logging", "run.log_every", "run.keep_checkpoints", "run.keep_best")
FREE_NAME = "cache_dir"  # of data, and of sources that keep one


def to_plain(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON can hold it, in its own order (abilities keep theirs)."""
    return {
        key: to_plain(value) if isinstance(value, ConfigDict) else _jsonable(value)
        for key, value in config.items()
    }


def from_plain(plain: Mapping[str, Any]) -> ConfigDict:
    """The inverse of `to_plain`.

    It keeps the order of the abilities, which is part of a run; copying a ConfigDict
    does not.
    """
    config = ConfigDict(sort_keys=False)
    for name, value in plain.items():
        config[name] = from_plain(value) if isinstance(value, Mapping) else value
    return config


def _jsonable(value: Any) -> Any:
    return json.loads(json.dumps(value))  # tuples become lists


def content_hash(content: Any) -> str:
    """Twelve hex digits of the `repr` of plain values."""
    return hashlib.blake2b(repr(content).encode(), digest_size=6).hexdigest()


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """`{"run": {"seed": 0}}` -> `{"run.seed": 0}`."""
    flat = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{path}.")
        else:
            flat[path] = value
    return flat


def _bound(config: Mapping) -> dict[str, Any]:
    """The fields that make a run what it is."""

    def is_free(path: str) -> bool:
        below = any(f"{path}.".startswith(f"{free}.") for free in FREE_FIELDS)
        return below or path.rpartition(".")[2] == FREE_NAME

    bound = {p: value for p, value in flatten(config).items() if not is_free(p)}
    # Ability k of a saved state is the k-th of the config.
    return bound | {"abilities (in order)": list(config["abilities"])}


def config_hash(config: Mapping) -> str:
    """Twelve hex digits that name the computation this config describes."""
    text = json.dumps(_bound(config), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def difference(old: Mapping, new: Mapping) -> list[str]:
    """One line for each field in which two plain configs describe other runs."""
    before, after = _bound(old), _bound(new)
    absent = "(absent)"
    return [
        f"{path}: {before.get(path, absent)!r} -> {after.get(path, absent)!r}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path, absent) != after.get(path, absent)
    ]
