"""TensorFlow Datasets, read without TensorFlow."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets
from ml_collections import ConfigDict

from dcft_jax.data.example import SourceData
from dcft_jax.data.sources.collect import Parsed, Records, collect_splits
from dcft_jax.data.sources.fields import source_fields
from dcft_jax.data.sources.levels import level_reader
from dcft_jax.data.sources.shapes import RowError, parse_row

_FIELDS = {"train": "split_train", "mix_val": "split_mix_val", "test": "split_test"}


def load_tfds(
    source: ConfigDict, *, held_out: int, seed: int, on_bad_row: str
) -> SourceData:
    """Examples of one data set of TensorFlow Datasets.

    The fields of `source` are `name`; `fields`, which names the text features for
    "prompt" and "response" (and "system", if wanted); `split_train`, in the syntax of
    TensorFlow Datasets ("train[:10%]"); optionally `split_mix_val` and `split_test`,
    whose absence has held-out examples split off; `data_dir`; `single_reference`; and
    `difficulty_field` and `difficulty_levels` (see `load_json_files`). The data set
    must be prepared as array_record, which is what random access needs; one that is
    missing is downloaded and prepared.

    Raises:
        ValueError: unknown field, data set, split or feature, a file format without
            random access, or a malformed row under "fail".
    """
    del held_out, seed  # the rows are given; splits.py holds some out
    fields = source_fields(
        source,
        required=("name", "fields"),
        split_train="train",
        split_mix_val="",
        split_test="",
        data_dir=None,
        single_reference=False,
        difficulty_field="",
        difficulty_levels=(),
    )
    records = {}
    for split, field in _FIELDS.items():
        if name := getattr(fields, field):
            rows = _open(fields.name, name, fields.data_dir)
            located = _located(rows, f"{fields.name}/{name}")
            records[split] = Records(f"{field}={name!r}", located)
    return collect_splits(
        records,
        _parser(dict(fields.fields), fields.difficulty_field, fields.difficulty_levels),
        source=fields.kind,
        single_reference=fields.single_reference,
        on_bad_row=on_bad_row,
    )


def _open(name: str, split: str, data_dir: str | None) -> Sequence[Mapping[str, Any]]:
    try:
        # One split gives one sequence; the declared type also covers trees of them.
        rows: Any = tensorflow_datasets.data_source(
            name, split=split, data_dir=data_dir
        )
    except tensorflow_datasets.core.DatasetNotFoundError as error:
        raise ValueError(
            f"name={name!r} is not a data set of TensorFlow Datasets"
        ) from error
    except NotImplementedError as error:
        raise ValueError(
            f"name={name!r} was prepared without random access; prepare it again "
            f"with `tfds build --file_format=array_record` ({error})"
        ) from error
    return rows


def _located(
    rows: Sequence[Mapping[str, Any]], name: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for index in range(len(rows)):
        yield f"{name}:{index + 1}", rows[index]


def _parser(
    features: dict[str, str], level_field: str, levels: Sequence[str]
) -> Callable[[Mapping[str, Any]], Parsed]:
    """A parser of rows, given {"prompt": feature, "response": feature}."""
    read_level = level_reader(level_field, levels)
    wanted = {"prompt", "response"}
    if not wanted <= set(features) <= wanted | {"system"}:
        raise ValueError(
            f"fields={features} must name a feature for 'prompt' and 'response' "
            "(and may for 'system')"
        )

    needed = {*features.values(), level_field} - {""}

    def parse(row: Mapping[str, Any]) -> Parsed:
        if missing := sorted(needed - set(row)):
            raise ValueError(
                f"fields: the data set has no feature {missing[0]!r}; "
                f"its features are {sorted(row)}"
            )
        texts = {field: _decode(row[name]) for field, name in features.items()}
        return parse_row(texts, "prompt_response"), read_level(row)

    return parse


def _decode(value: object) -> object:
    """Text of a text feature; anything else is left for parse_row to refuse."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise RowError(f"a text feature is not UTF-8 ({error})") from error
