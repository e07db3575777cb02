"""`python -m dcft_jax.data.fetch unseen`, on small archives of the same layout."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from dcft_jax.data.archive import Archive, read_members
from dcft_jax.data.fetch import __main__ as command
from dcft_jax.data.fetch import convert_unseen
from dcft_jax.data.fetch.store import read_manifest
from dcft_jax.data.fetch.task import Task
from dcft_jax.data.fetch.unseen import BIG_BENCH, EVALS, UNSEEN
from dcft_jax.meta.published import PUBLISHED, published_examples, split_of
from tests.wheels import pip_finds, sha256, write_wheel

DATES = {
    "examples": [
        {"input": "It was May 1. Today?", "target_scores": {"5/1": 0, "5/2": 1}},
        {"input": "It is unknown. Today?", "target_scores": {"5/1": 0, "5/2": 0}},
    ]
}
LISTS = {
    "task_prefix": "Apply a function.\n",
    "example_input_prefix": "",
    "example_output_prefix": "\nA: ",
    "examples": [{"input": f"Q: [{n}]", "target": f"[{n}]"} for n in range(1200)],
}
FACTS = {
    "task_prefix": "Definition: Combine the facts.",
    "examples": [
        {"input": "Fact 1: a. \nFact 2: b.", "target": ["ab.", "ba."]},
        {"input": "Fact 1: c. \nFact 2: d.", "target": ["cd."]},
    ],
}
REGEX = [
    {
        "input": [
            {"role": "system", "content": "Help."},
            {"role": "user", "content": f"does {n} match? "},
        ],
        "ideal": "Yes." if n % 2 else "No.",
    }
    for n in range(120)
]
NAMES = ("date_understanding", "list_functions", "qasc_combined_fact", "regex_match")
ROWS = dict(zip(NAMES, (1, 500, 2, 120), strict=True))


def write_sdist(folder: Path, members: dict[str, bytes]) -> Archive:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny-bench-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return Archive("tiny-bench", "1.0", path.name, sha256(path))


def small_tasks(folder: Path) -> list[Task]:
    """Four of the tasks, with the first file of each only."""
    chosen = {task.name: task for task in UNSEEN if task.name in NAMES}
    contents = dict(zip(NAMES, (DATES, LISTS, FACTS), strict=False))
    sdist = write_sdist(
        folder,
        {
            chosen[name].members[0]: json.dumps(content).encode()
            for name, content in contents.items()
        },
    )
    lines = "".join(json.dumps(row) + "\n" for row in REGEX)
    wheel = write_wheel(folder, "tiny-evals", {chosen["regex_match"].members[0]: lines})
    archives = {BIG_BENCH: sdist, EVALS: wheel}
    return [
        task._replace(
            archive=archives[task.archive], members=task.members[:1], rows=ROWS[name]
        )
        for name, task in chosen.items()
    ]


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


def test_published_examples_are_of_one_split_and_never_to_train_on(folder):
    found = {
        split: published_examples("regex_match", split, 500, directory=folder)
        for split in ("support", "test")
    }
    assert sum(map(len, found.values())) == len(REGEX)
    for split, examples in found.items():
        assert 40 < len(examples) < 80
        assert all(split_of(one.messages[0][1]) == split for one in examples)
        assert all(one.single_reference for one in examples)
        fewer = published_examples("regex_match", split, 16, directory=folder)
        assert fewer == examples[:16]
        other = published_examples("regex_match", split, 16, seed=1, directory=folder)
        assert other != fewer
    open_ended = [
        example
        for split in found
        for example in published_examples("qasc_combined_fact", split, 9, 0, folder)
    ]
    assert len(open_ended) == 2
    assert not any(example.single_reference for example in open_ended)
    with pytest.raises(ValueError, match="split='train' must be one of"):
        published_examples("regex_match", "train", 1, directory=folder)


def test_without_the_suite_the_message_is_the_command(tmp_path, folder):
    fetch = "python -m dcft_jax.data.fetch unseen --to"
    with pytest.raises(FileNotFoundError, match=f"`{fetch} {tmp_path}` fetches it"):
        published_examples("regex_match", "test", 1, directory=tmp_path)
    with pytest.raises(FileNotFoundError, match="the task 'sql' is not in"):
        published_examples("sql", "test", 1, directory=folder)
    path = folder / "unseen" / "regex_match.jsonl"
    path.write_text(path.read_text().replace("Yes", "Sure"))
    with pytest.raises(ValueError, match=r"regex_match\.jsonl is not what was fetched"):
        published_examples("regex_match", "test", 1, directory=folder)


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


def test_the_suite_has_every_task_that_is_collected():
    names = [task.name for task in UNSEEN]
    assert len(names) == len(set(names))
    assert {*names} - PUBLISHED.keys() == {"sql"}
    assert PUBLISHED.keys() <= {*names}
