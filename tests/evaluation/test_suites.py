"""Suites: what was fetched, and the same draw for every model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcft_jax.data.fetch.store import remove_task, write_tasks
from dcft_jax.evaluation.items import Item
from dcft_jax.evaluation.suites import SUITES, draw, load_suite
from tests.data.fetch.documents import ROWS, small_tasks


@pytest.fixture
def directory(tmp_path):
    tasks = small_tasks(tmp_path / "wheels")
    write_tasks(tasks, tmp_path / "offline", tmp_path / "wheels")
    return tmp_path


def test_offline_is_what_was_fetched(directory):
    suite = load_suite("offline", directory)
    assert {task: len(items) for task, items in suite.items()} == ROWS
    items = [item for items in suite.values() for item in items]
    assert len({item.id for item in items}) == len(items)
    assert all(item.task == task for task in suite for item in suite[task])


def test_without_it_the_message_is_the_command(tmp_path, monkeypatch):
    fetch = "python -m dcft_jax.data.fetch offline"
    with pytest.raises(FileNotFoundError, match=f"`{fetch} --to {tmp_path}`"):
        load_suite("offline", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"`{fetch}` fetches"):
        load_suite("offline")


def test_a_damaged_file_is_not_read(directory):
    path = directory / "offline" / "mbpp.jsonl"
    path.write_text(path.read_text().replace("one", "two"))
    with pytest.raises(ValueError, match=r"mbpp\.jsonl is not what was fetched; `pyth"):
        load_suite("offline", directory)


def test_what_was_left_out_is_left_out_of_the_advice(directory):
    remove_task("math_short", directory / "offline")
    assert "math_short" not in load_suite("offline", directory)
    (directory / "offline" / "mbpp.jsonl").unlink()
    with pytest.raises(
        ValueError, match=r"offline --to \S+ --without math_short` mends"
    ):
        load_suite("offline", directory)


def test_what_was_fetched_in_part_is_not_taken_for_all(tmp_path):
    tasks = small_tasks(tmp_path / "wheels")
    broken = tasks[2]._replace(rows=99)
    with pytest.raises(ValueError, match="not 99"):
        write_tasks(
            [*tasks[:2], broken, *tasks[3:]], tmp_path / "offline", tmp_path / "wheels"
        )
    with pytest.raises(ValueError, match=r"mbpp\.jsonl is not what was fetched"):
        load_suite("offline", tmp_path)


def test_wrong_arguments(directory):
    with pytest.raises(ValueError, match="suite 'online': there are offline"):
        load_suite("online", directory)
    with pytest.raises(ValueError, match="limit=0 must be at least 1"):
        load_suite("offline", directory, limit=0)
    assert "offline" in SUITES


def _items(count: int) -> list[Item]:
    return [Item(f"t/{n}", "t", f"{n}?", "exact", "", gold="x") for n in range(count)]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 3))
def test_a_limit_draws_a_subset_that_a_larger_one_contains(small, large, seed):
    small, large = sorted((small, large))
    items = _items(50)
    few, many = draw(items, small, seed), draw(items, large, seed)
    assert len(few) == min(small, 50)
    assert set(few) <= set(many) <= set(items)
    assert few == sorted(few, key=items.index), "in their own order"


def test_the_draw_depends_on_the_seed_alone_and_is_even():
    items = _items(200)
    drawn = [draw(items, 50, seed) for seed in range(80)]
    assert draw(list(reversed(items)), 50, 0) == list(reversed(drawn[0]))
    times = [sum(item in some for some in drawn) for item in items]
    # Binomial(80, 1/4): five standard deviations about 20.
    assert min(times) > 0 and max(times) < 40
    assert abs(sum(times[:100]) - 2000) < 250, "no preference for the first"


def test_a_limited_suite_has_so_many_of_every_task(directory):
    suite = load_suite("offline", directory, limit=2)
    assert {task: len(items) for task, items in suite.items()} == {
        task: min(count, 2) for task, count in ROWS.items()
    }
    assert suite == load_suite("offline", directory, limit=2)
