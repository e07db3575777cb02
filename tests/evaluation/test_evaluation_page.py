"""docs/evaluation.md says what the code has."""

import re
from collections import Counter
from pathlib import Path

import pytest

from configs import base
from dcft_jax import evaluate
from dcft_jax.data.fetch.__main__ import make_parser
from dcft_jax.data.fetch.offline import OFFLINE
from dcft_jax.data.fetch.unseen import UNSEEN
from dcft_jax.distributed import OPTIONS
from dcft_jax.evaluation.emerging import FAMILIES, LEFT_OUT, emerging_items
from dcft_jax.evaluation.items import KINDS
from dcft_jax.evaluation.suites import SUITES
from dcft_jax.lm_eval.__main__ import make_parser as harness_parser
from tests.test_docs import block_with

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()


def table(head: str) -> list[list[str]]:
    """The cells of the table whose first line begins so."""
    lines = PAGE[PAGE.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines]


def test_every_task_with_its_rows_and_licence():
    listed = {row[0]: row[1:5] for row in table("task")}
    assert listed == {
        task.name: [f"{task.rows:,}", task.split, task.licence, task.licence_source]
        for task in OFFLINE
    }
    listed = {row[0]: row[1] for row in table("unseen task")}
    assert listed == {task.name: f"{task.rows:,}" for task in UNSEEN}
    for task in (*OFFLINE, *UNSEEN):
        assert task.archive.requirement.replace("==", " ") in PAGE


def test_every_option_of_the_command():
    options = {o for a in make_parser()._actions for o in a.option_strings}
    assert {row[0] for row in table("option")} == options - {"-h", "--help"}


def test_every_field_of_the_config_with_its_default():
    fields = dict(base.get_config().evaluation)
    listed = {row[0]: row[1] for row in table("`config.evaluation`")}
    assert listed.keys() == fields.keys()
    for name, default in fields.items():
        shown = f'"{default}"' if isinstance(default, str) else f"{default:g}"
        assert listed[name] == (str(default) if isinstance(default, bool) else shown)


def test_every_kind_of_item():
    assert [row[0] for row in table("`kind`")] == list(KINDS)


def test_the_commands_are_understood():
    lines = PAGE.replace("\\\n", "")  # commands of several lines
    commands = re.findall(r"^python -m dcft_jax.evaluate (.*)", lines, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        evaluate.make_parser().parse_args(command.partition("#")[0].split())


def test_every_suite_and_family():
    assert all(f"### `{name}`" in PAGE for name in SUITES)
    families = {row[0]: row[1] for row in table("family")}
    assert families == {name: known.category for name, known in FAMILIES.items()}
    words = re.sub(r"\s+", " ", PAGE)
    for family, reason in LEFT_OUT.items():
        assert f"`{family}` ({reason})" in words


def test_the_chance_levels_of_the_families():
    pytest.importorskip("reasoning_gym")
    for family, _, _, chance in table("family"):
        golds = Counter(item.gold for item in emerging_items(family))
        ((_, most),) = golds.most_common(1)
        assert chance == f"{100 * most / golds.total():.1f} %", family


def test_the_examples_run(tmp_path, monkeypatch):
    pytest.importorskip("reasoning_gym")
    from dcft_jax.data.example import Example
    from dcft_jax.data.fetch.store import write_tasks
    from tests.data.fetch.documents import small_tasks

    tasks = small_tasks(tmp_path / "wheels")
    write_tasks(tasks, tmp_path / ".cache/dcft/offline", tmp_path / "wheels")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(block_with("docs/evaluation.md", "load_suite("), names)
    assert {len(items) for items in names["emerging"].values()} == {64}
    texts = ("Open a door.", "Say something else.")
    names["train"] = [
        Example((("user", text), ("assistant", "ok")), "t") for text in texts
    ]
    exec(block_with("docs/evaluation.md", "overlapping("), names)
    assert names["remove"] == {0}


def test_every_option_of_the_harness_is_explained():
    section = PAGE[PAGE.index("## lm-evaluation-harness") :]
    table = [line for line in section.splitlines() if line.startswith("| `--")]
    named = set(re.findall(r"--\w+", " ".join(table)))
    parser = harness_parser()
    known = {o for action in parser._actions for o in action.option_strings}
    assert named == known - {"-h", "--help"} - {f"--{name}" for name in OPTIONS}
    for line in table:
        option, default = (cell.strip("` ") for cell in line.split("|")[1:3])
        if default.isdigit():
            assert parser.get_default(option.removeprefix("--")) == int(default)
