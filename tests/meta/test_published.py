"""Published tasks are described and measured, and never trained on."""

import dataclasses

import pytest

from dcft_jax.data.fetch.store import write_tasks
from dcft_jax.data.fetch.unseen import UNSEEN
from dcft_jax.meta.families import TEST_TASKS, category
from dcft_jax.meta.lab import make_lab
from dcft_jax.meta.published import PUBLISHED, published_examples, split_of
from dcft_jax.meta.worlds import Settings, draw_world, smoke, with_published
from tests.data.fetch.unseen_documents import REGEX, small_tasks


@pytest.fixture
def folder(tmp_path):
    """What the fetch command was given as `--to`."""
    archives = tmp_path / "to" / "wheels"
    write_tasks(small_tasks(archives), tmp_path / "to" / "unseen", archives)
    return tmp_path / "to"


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


def test_they_are_measured_and_no_ability(folder, tmp_path):
    pytest.importorskip("reasoning_gym")
    plain, directory = smoke(), str(folder)
    tasks = (*plain.tasks, "regex_match", "list_functions")
    settings = dataclasses.replace(plain, tasks=tasks, directory=directory)
    lab = make_lab(settings, tmp_path / "lab")
    for task in ("regex_match", "list_functions"):
        assert lab.test[task].num_examples == settings.test
        described = sum(rows.num_examples for rows in lab.support[task])
        assert described == settings.support
    # The worlds and their bases are those without.
    assert settings.families == plain.families
    assert draw_world(settings, 0) == draw_world(plain, 0)
    assert settings.identity != plain.identity
    elsewhere = dataclasses.replace(settings, directory="elsewhere")
    assert elsewhere.identity == settings.identity


def test_what_does_not_fit_is_refused(folder, tmp_path):
    pytest.importorskip("reasoning_gym")
    tasks = (*smoke().tasks, "date_understanding")  # of which one is there
    settings = dataclasses.replace(smoke(), tasks=tasks, directory=str(folder))
    with pytest.raises(
        ValueError, match=r"'date_understanding': only \d of \d examples"
    ):
        make_lab(settings, tmp_path / "lab")


def test_what_is_tested_is_not_learnt_from():
    assert len(TEST_TASKS) == len(set(TEST_TASKS)) == 16
    assert {*with_published(Settings()).tasks} >= {*TEST_TASKS, *PUBLISHED}
    learnt = {task for task, known in PUBLISHED.items() if known.learnt_from}
    assert len(learnt) == 13 and not learnt & {*TEST_TASKS}
    assert category("regex_match") == "code"
    assert not {category(task) for task in learnt} & {
        category(task) for task in TEST_TASKS
    }


def test_the_suite_has_every_task_that_is_collected():
    names = [task.name for task in UNSEEN]
    assert len(names) == len(set(names))
    assert {*names} - PUBLISHED.keys() == {"sql"}
    assert PUBLISHED.keys() <= {*names}
