"""Where examples come from: one module per family of sources, one factory per kind.

A factory has the signature

    factory(source: ConfigDict, *, held_out: int, seed: int, on_bad_row: str)
        -> SourceData

`source` holds the user's fields. A source that generates gives about `held_out`
examples in each of mix_val and test; `seed` is the seed of the data; `on_bad_row`
says whether a malformed row is an error ("fail") or only counted ("skip"). A source
that knows how hard an example is says so in `metadata["difficulty"]`, a number.

Every kind also has the field `difficulty`: one number for all examples of the source,
in place of their own. Levels are compared between the sources of an ability.
"""

import importlib
import math
from dataclasses import replace

from ml_collections import ConfigDict

from dcft_jax.data.example import SourceData

__all__ = ["SOURCES", "open_source"]

# kind -> (module of this package:factory, what to install if an import fails).
# Modules are imported on first use: most of them have dependencies of their own.
_BUILT_IN = "'dcft-jax[quickstart]'"
SOURCES = {
    "jsonl": ("jsonl:load_jsonl", ""),
    "tfds": ("tfds:load_tfds", "tensorflow-datasets importlib-resources"),
    "array_record": ("array_record:load_array_record", "array-record"),
    "reasoning_gym": ("maths:reasoning_gym", _BUILT_IN),
    "micro_functions": ("micro_functions:micro_functions", _BUILT_IN),
    "doctest_functions": ("doctest_functions:doctest_functions", _BUILT_IN),
    "chatterbot": ("general:chatterbot", _BUILT_IN),
    "instructions": ("general:instructions", _BUILT_IN),
}


def open_source(
    source: ConfigDict, *, held_out: int, seed: int, on_bad_row: str
) -> SourceData:
    """Opens one source of a config, by its `kind`.

    Raises:
        ValueError: unknown or missing kind, a `difficulty` that is no finite number,
            or what the factory refuses.
        FileNotFoundError: a file that the source names is missing.
        ImportError: an optional package is missing; says what to install.
    """
    kind = source.get("kind")
    if kind not in SOURCES:
        raise ValueError(f"kind={kind!r} is not a source; choose one of {[*SOURCES]}")
    fields = ConfigDict({k: v for k, v in source.items() if k != "difficulty"})
    data = _load(fields, held_out=held_out, seed=seed, on_bad_row=on_bad_row)
    level = source.get("difficulty")
    return data if level is None else _with_level(data, level)


def _load(source: ConfigDict, **arguments) -> SourceData:
    target, packages = SOURCES[source.kind]
    module, factory = target.split(":")
    try:
        load = getattr(importlib.import_module(f"{__name__}.{module}"), factory)
        return load(source, **arguments)
    except ModuleNotFoundError as error:
        if not packages or (error.name or "").startswith("dcft_jax"):
            raise
        raise ImportError(
            f"kind={source.kind!r} needs the module {error.name!r}; "
            f"pip install {packages}"
        ) from error


def _with_level(data: SourceData, level: float) -> SourceData:
    """The same examples, all of one difficulty."""
    if not isinstance(level, int | float) or not math.isfinite(level):
        raise ValueError(f"difficulty={level!r} must be a finite number")
    splits = {
        split: [
            replace(row, metadata={**row.metadata, "difficulty": level}) for row in rows
        ]
        for split, rows in data.splits.items()
    }
    return replace(data, splits=splits)
