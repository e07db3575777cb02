import gzip
import importlib
import inspect
import json
import sys

import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from ml_collections import ConfigDict

from dcft_jax.data.example import Example
from dcft_jax.data.sources import SOURCES, open_source

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
ROWS = [
    {"prompt": "1+1?", "response": "2"},
    {"instruction": "Greet.", "input": "", "output": "Hello — ça va?"},
    {"messages": TURNS},
]
MESSAGES = [
    (("user", "1+1?"), ("assistant", "2")),
    (("user", "Greet."), ("assistant", "Hello — ça va?")),
    (("user", "a"), ("assistant", "b")),
]


def write_lines(path, rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def write_array_record(path, records):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    return str(path)


def load(kind="jsonl", on_bad_row="fail", **fields):
    source = ConfigDict(dict(kind=kind, **fields))
    return open_source(source, held_out=4, seed=0, on_bad_row=on_bad_row)


def test_jsonl_reads_mixed_shapes_and_passes_over_blank_lines(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [ROWS[0], "", *ROWS[1:], "  "])
    data = load(path=path, single_reference=True)
    assert list(data.splits) == ["all"]
    assert data.splits["all"] == [Example(m, "jsonl", True) for m in MESSAGES]
    assert data.skipped == 0


def test_jsonl_reads_gzip_and_a_byte_order_mark(tmp_path):
    text = "\ufeff" + "\n".join(json.dumps(row) for row in ROWS)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "b.jsonl").write_text(text, encoding="utf-8")
    for name in ("a.jsonl.gz", "b.jsonl"):
        rows = load(path=str(tmp_path / name)).splits["all"]
        assert [row.messages for row in rows] == MESSAGES


def test_a_glob_reads_files_in_order_of_name(tmp_path):
    for index in (2, 0, 1):
        write_lines(tmp_path / f"part-{index}.jsonl", [ROWS[index]])
    (tmp_path / "part-3.jsonl").mkdir()
    rows = load(path=str(tmp_path / "part-*.jsonl")).splits["all"]
    assert [row.messages for row in rows] == MESSAGES


def test_paths_are_relative_to_the_working_directory(tmp_path, monkeypatch):
    write_lines(tmp_path / "odd[1].jsonl", ROWS)
    monkeypatch.chdir(tmp_path)
    assert len(load(path="odd[1].jsonl").splits["all"]) == 3


def test_own_held_out_files_become_splits(tmp_path):
    paths = [write_lines(tmp_path / f"{i}.jsonl", [ROWS[i]]) for i in range(3)]
    data = load(path=paths[0], mix_val_path=paths[1], test_path=paths[2])
    found = {split: rows[0].messages for split, rows in data.splits.items()}
    assert found == dict(zip(["train", "mix_val", "test"], MESSAGES, strict=True))
    only_test = load(path=paths[0], test_path=paths[2])
    assert set(only_test.splits) == {"all", "test"}


def test_max_examples_counts_good_rows_of_path_only(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", ["{", *ROWS])
    test = write_lines(tmp_path / "t.jsonl", ROWS)
    data = load(path=path, test_path=test, max_examples=2, on_bad_row="skip")
    assert len(data.splits["all"]) == 2
    assert len(data.splits["test"]) == 3
    with pytest.raises(ValueError, match="max_examples=0"):
        load(path=path, max_examples=0)


BAD_LINES = ["{", '{"prompt": "x"}', '{"prompt": "x", "response": ""}', "3"]


@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_bad_row_names_file_line_and_reason(tmp_path, bad):
    path = write_lines(tmp_path / "a.jsonl", [ROWS[0], "", bad])
    with pytest.raises(ValueError, match=r"a\.jsonl:3: .*on_bad_row='skip'"):
        load(path=path)


def test_bad_rows_are_counted_under_skip(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [*BAD_LINES, *ROWS])
    data = load(path=path, on_bad_row="skip")
    assert data.skipped == len(BAD_LINES)
    assert [row.messages for row in data.splits["all"]] == MESSAGES


def test_files_without_usable_rows_are_refused(tmp_path):
    empty = write_lines(tmp_path / "empty.jsonl", [])
    with pytest.raises(ValueError, match=r"path='.*empty\.jsonl' has no usable row"):
        load(path=empty)
    bad = write_lines(tmp_path / "bad.jsonl", BAD_LINES)
    with pytest.raises(ValueError, match="4 malformed"):
        load(path=bad, on_bad_row="skip")


def test_a_missing_file_names_the_field(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(FileNotFoundError, match=r"path='nowhere/\*' matches no file"):
        load(path="nowhere/*")
    with pytest.raises(FileNotFoundError, match="test_path='nowhere' matches no"):
        load(path=path, test_path="nowhere")
    with pytest.raises(ValueError, match="is a directory"):
        load(path=str(tmp_path))


def test_other_formats_are_named(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    with pytest.raises(ValueError, match="one JSON array; write one object per line"):
        load(path=str(tmp_path / "a.json"))
    whole = gzip.compress(json.dumps(ROWS[0]).encode())
    for content in (b"plain text", whole[:-9]):
        (tmp_path / "a.jsonl.gz").write_bytes(content)
        with pytest.raises(ValueError, match="not a whole gzip file"):
            load(path=str(tmp_path / "a.jsonl.gz"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(), "needs the field 'path'"),
        (dict(path=""), "needs the field 'path'"),
        (dict(path="a", pth="b"), "has no field 'pth'"),
        (dict(path="a", shape="chatml"), "shape='chatml'; choose one of"),
        (dict(path=3), "path=3 must be text"),
        (dict(kind="csv"), "kind='csv' is not a source; choose one of .*'jsonl'"),
        (dict(kind=None), "kind=None is not a source"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        load(**fields)


def test_array_record_reads_what_its_writer_wrote(tmp_path):
    records = [json.dumps(row).encode() for row in ROWS]
    for index in range(2):
        write_array_record(tmp_path / f"{index}.array_record", records)
    data = load("array_record", path=str(tmp_path / "*.array_record"))
    assert [row.messages for row in data.splits["all"]] == MESSAGES * 2


def test_array_record_names_the_bad_record(tmp_path):
    good = json.dumps(ROWS[0]).encode()
    path = write_array_record(tmp_path / "a.array_record", [good, b"\xff", good])
    with pytest.raises(ValueError, match=r"a\.array_record:2: not valid JSON"):
        load("array_record", path=path)
    data = load("array_record", path=path, on_bad_row="skip")
    assert (len(data.splits["all"]), data.skipped) == (2, 1)


def test_array_record_refuses_other_files(tmp_path):
    path = write_lines(tmp_path / "a.array_record", ROWS)
    with pytest.raises(ValueError, match="not a readable ArrayRecord file"):
        load("array_record", path=path)


def test_a_missing_package_names_what_to_install(monkeypatch, tmp_path):
    needed = "array_record.python.array_record_data_source"
    monkeypatch.setitem(sys.modules, needed, None)
    monkeypatch.delitem(
        sys.modules, "dcft_jax.data.sources.array_record", raising=False
    )
    with pytest.raises(ImportError, match="pip install array-record"):
        load("array_record", path=str(tmp_path))


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_leads_to_a_factory(kind):
    module, factory = SOURCES[kind][0].split(":")
    load = getattr(importlib.import_module(f"dcft_jax.data.sources.{module}"), factory)
    parameters = inspect.signature(load).parameters
    assert list(parameters) == ["source", "held_out", "seed", "on_bad_row"]
