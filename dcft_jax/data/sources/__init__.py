"""Where examples come from: one module per family of sources, one factory per kind.

A factory has the signature

    factory(source: ConfigDict, *, held_out: int, seed: int, on_bad_row: str)
        -> SourceData

`source` holds the user's fields. A source that generates gives about `held_out`
examples in each of mix_val and test; `seed` is the seed of the data; `on_bad_row`
says whether a malformed row is an error ("fail") or only counted ("skip").
"""

import importlib

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
        ValueError: unknown or missing kind, or what the factory refuses.
        FileNotFoundError: a file that the source names is missing.
        ImportError: an optional package is missing; says what to install.
    """
    kind = source.get("kind")
    if kind not in SOURCES:
        raise ValueError(f"kind={kind!r} is not a source; choose one of {[*SOURCES]}")
    target, packages = SOURCES[kind]
    module, factory = target.split(":")
    try:
        load = getattr(importlib.import_module(f"{__name__}.{module}"), factory)
        return load(source, held_out=held_out, seed=seed, on_bad_row=on_bad_row)
    except ModuleNotFoundError as error:
        if not packages or (error.name or "").startswith("dcft_jax"):
            raise
        raise ImportError(
            f"kind={kind!r} needs the module {error.name!r}; pip install {packages}"
        ) from error
