"""The experience store keeps whole records, whoever writes and whoever dies."""

import gzip
import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dcft_jax.meta.experience import (
    SCHEMA_VERSION,
    add_embedding,
    add_run,
    cases,
    count_models,
    embedded_tasks,
    export,
    merge,
    open_store,
)
from tests.meta.stores import make_features, make_record

ROOT = Path(__file__).parent.parent.parent


def _writer(path, first: int, count: int, num_tasks: int = 2) -> subprocess.Popen:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.meta.stores", str(path)),
            *map(str, (first, count, num_tasks)),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def _counts(path) -> tuple[int, int]:
    store = open_store(path)
    found = tuple(
        store.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
        for table in ("models", "outcomes")
    )
    store.close()
    return found


def test_a_record_comes_back(tmp_path):
    store = open_store(tmp_path / "store.db")
    features = make_features()
    add_embedding(store, "w", "lcm0", features)
    add_embedding(store, "elsewhere", "lcm0", features)  # without models: no case
    records = [make_record(number) for number in (70, 10, 30, 50)]
    for record in records:
        add_run(store, record)
    add_run(store, make_record(5, source="interpolated"))
    (case,) = cases(store)
    assert case.world == "w" and case.task == "lcm0" and case.category == "arithmetic"
    assert case.abilities == ("a", "b")
    np.testing.assert_array_equal(case.seed_N, [10, 30, 50, 70])
    np.testing.assert_allclose(case.weights_NK[:, 0], [0.1, 0.3, 0.5, 0.7])
    np.testing.assert_allclose(case.loss_N, [1.1, 1.3, 1.5, 1.7])
    for found, expected in zip(case.features, features, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not cases(store, min_models=5)
    assert len(cases(store, 1, ("interpolated",))[0].loss_N) == 1
    assert embedded_tasks(store, "w") == ["lcm0"]


def test_what_was_not_measured_is_nan(tmp_path):
    store = open_store(tmp_path / "store.db")
    add_embedding(store, "w", "t", make_features())
    outcome = make_record(0).outcomes[0]._replace(task="t", accuracy=float("nan"))
    add_run(store, make_record(1, outcomes=(outcome,)))
    lost = outcome._replace(loss=float("nan"))
    add_run(store, make_record(2, outcomes=(lost,)))
    (case,) = cases(store, 1)
    assert np.isnan(case.accuracy_N) and len(case.loss_N) == 1


def test_adding_twice_is_adding_once(tmp_path):
    store = open_store(tmp_path / "store.db")
    first = add_run(store, make_record(1))
    assert add_run(store, make_record(1, created="later")) == first
    assert add_run(store, make_record(1, budget=1001)) != first
    assert count_models(store, "w", "population") == {"": 2}
    assert count_models(store, "w", "run") == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(weights_K=(0.5, 0.6)), r"weights_K=\(0.5, 0.6\) are not on the simplex"),
        (dict(weights_K=(1.0,)), "one for each of the abilities"),
        (dict(source="dream"), "source='dream' must be one of"),
        (dict(outcomes=()), "give one or more"),
        (dict(outcomes=make_record(0).outcomes[:1] * 2), "each task once"),
    ],
)
def test_wrong_records_are_refused(tmp_path, changes, message):
    store = open_store(tmp_path / "store.db")
    with pytest.raises(ValueError, match=message):
        add_run(store, make_record(1, **changes))
    assert count_models(store, "w", "population") == {}


def test_a_world_has_one_set_of_abilities(tmp_path):
    store = open_store(tmp_path / "store.db")
    add_embedding(store, "w", "lcm0", make_features())
    add_run(store, make_record(1))
    add_run(store, make_record(2, abilities=("b", "a")))
    with pytest.raises(ValueError, match="the same abilities throughout"):
        cases(store, 1)


def test_many_writers_at_once(tmp_path):
    path = tmp_path / "new" / "store.db"
    writers = [_writer(path, 10 * index, 12) for index in range(6)]
    assert [writer.wait(120) for writer in writers] == [0] * 6
    # Neighbours write two of the same records.
    assert _counts(path) == (62, 62 * 4)


def test_a_killed_writer_leaves_whole_records_only(tmp_path):
    path, rng = tmp_path / "store.db", random.Random(0)
    num_tasks, killed = 2000, 0
    for round_ in range(4):
        writer = _writer(path, 1000 * round_, 0, num_tasks)
        for _ in range(rng.randrange(1, 4)):  # so that it is writing by now
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        killed += writer.wait() == -signal.SIGKILL
        models, outcomes = _counts(path)
        assert models >= round_ + 1 and outcomes == models * num_tasks * 2
    assert killed == 4
    store = open_store(path)
    assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    add_run(store, make_record(1))


def test_merging_twice_is_merging_once(tmp_path):
    paths = [tmp_path / f"{index}.db" for index in range(2)]
    for index, path in enumerate(paths):
        other = open_store(path)
        add_embedding(other, "w", "lcm0", make_features())
        for number in range(index, index + 3):
            add_run(other, make_record(number))
        export(other, tmp_path / f"{index}.db.gz")
        other.close()
    store = open_store(tmp_path / "all.db")
    merge(store, paths)
    before = list(store.iterdump())
    merge(store, [tmp_path / "0.db.gz", *paths])
    assert list(store.iterdump()) == before
    assert count_models(store, "w", "population") == {"": 4}
    assert len(cases(store)[0].loss_N) == 4


def test_an_export_is_the_same_every_time(tmp_path):
    store = open_store(tmp_path / "store.db")
    add_run(store, make_record(1))
    for name in ("a.db.gz", "b.db.gz", "c.db"):
        export(store, tmp_path / name)
    packed = (tmp_path / "a.db.gz").read_bytes()
    assert packed == (tmp_path / "b.db.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "c.db").read_bytes()
    assert list(open_store(tmp_path / "c.db").iterdump()) == list(store.iterdump())


def test_other_files_are_refused(tmp_path):
    text = tmp_path / "notes.db"
    text.write_text("not a database, whatever its name says " * 50)
    with pytest.raises(ValueError, match=r"notes\.db is no experience store"):
        open_store(text)
    (tmp_path / "notes.gz").write_text("not packed")
    store = open_store(tmp_path / "store.db")
    for name in ("notes.db", "notes.gz"):
        with pytest.raises(ValueError, match="no experience store"):
            merge(store, [tmp_path / name])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.db"):
        merge(store, [tmp_path / "nowhere.db"])
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE songs (name TEXT)")
    other.commit()
    with pytest.raises(ValueError, match=r"it has the tables \['songs'\]"):
        open_store(tmp_path / "other.db")
    store.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(ValueError, match=f"schema version {SCHEMA_VERSION + 1}"):
        open_store(tmp_path / "store.db")
