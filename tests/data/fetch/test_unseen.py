"""`python -m dcft_jax.data.fetch unseen`, on small archives of the same layout."""

import json
from pathlib import Path

import pytest

from dcft_jax.data.archive import read_members
from dcft_jax.data.fetch import __main__ as command
from dcft_jax.data.fetch import convert_unseen
from dcft_jax.data.fetch.store import read_manifest
from tests.data.fetch.unseen_documents import ROWS, small_tasks, write_sdist
from tests.wheels import pip_finds


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the command was given as `--to`."""
    pip_finds(tmp_path / "nothing", monkeypatch)
    tasks = tuple(small_tasks(tmp_path / "to" / "wheels"))
    monkeypatch.setitem(command.FETCHED, "unseen", tasks)
    command.main(["unseen", "--to", str(tmp_path / "to")])
    return tmp_path / "to"


def rows_of(folder: Path, task: str) -> list[dict]:
    return [json.loads(x) for x in (folder / "unseen" / f"{task}.jsonl").open()]


def test_the_rows_are_those_of_the_documents(folder):
    (date,) = rows_of(folder, "date_understanding")  # one has no right choice
    assert (date["kind"], date["choices"], date["gold"]) == (
        "choice",
        ["5/1", "5/2"],
        1,
    )
    assert date["reference"] == "5/2" and date["prompt"] == "It was May 1. Today?"
    lists = rows_of(folder, "list_functions")
    assert lists[0]["prompt"] == "Apply a function.\n\nQ: [0]\nA:"
    assert lists[0]["metadata"]["instance"] == "Q: [0]\nA:"
    # 500 of 1,200, from the first to nearly the last.
    assert [row["gold"] for row in lists[:3]] == ["[0]", "[2]", "[4]"]
    assert lists[-1]["gold"] == "[1197]"
    first, second = rows_of(folder, "qasc_combined_fact")
    assert first["reference"] == "ab." and second["reference"] == "cd."
    assert first["kind"] == second["kind"] == "reference" and "gold" not in second
    assert first["prompt"].startswith("Definition: Combine the facts.\n\nFact 1: a.")
    regex, *_ = rows_of(folder, "regex_match")
    assert regex["history"] == [["system", "Help."]]
    assert (regex["prompt"], regex["gold"]) == ("does 0 match?", "No.")
    manifest = read_manifest(folder / "unseen")
    assert {name: entry["rows"] for name, entry in manifest.items()} == ROWS
    assert manifest["regex_match"]["archive_sha256"].isalnum()


@pytest.mark.parametrize(
    ("target", "kind"),
    [("12.5", "reference"), (["a", "b"], "reference"), ("[1, 2]", "exact")],
)
def test_what_is_graded_by_degrees_is_not_judged(target, kind):
    doc = {"input": "?", "target": target, "at": 0}
    doc |= {"definition": "", "before": "", "after": ""}
    row = convert_unseen.bigbench(doc, "a/task.json")
    assert (
        row is not None and row["kind"] == kind and ("gold" in row) == (kind == "exact")
    )


def test_a_source_distribution_is_read_in_one_pass(tmp_path):
    members = {"a/one.json": b"1", "a/two.json": b"2", "a/more.json": b"3"}
    sdist = write_sdist(tmp_path, members)
    wanted = {"a/one.json": b"1", "a/more.json": b"3"}
    assert read_members(tmp_path / sdist.file, wanted) == wanted
    with pytest.raises(ValueError, match=r"holds no file a/four, a/three"):
        read_members(tmp_path / sdist.file, ["a/one.json", "a/three", "a/four"])
    path = tmp_path / sdist.file
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"tiny-bench-1\.0.*remove it"):
        read_members(path, ["a/one.json"])


def test_out_of_reach_the_message_says_how_to_get_it_elsewhere(folder):
    (folder / "wheels" / "tiny-bench-1.0.tar.gz").unlink()
    (folder / "unseen" / "list_functions.jsonl").unlink()
    message = r"(?s)pip download --no-deps --no-binary tiny-bench tiny-bench==1\.0"
    with pytest.raises(SystemExit, match=message):
        command.main(["unseen", "--to", str(folder)])
