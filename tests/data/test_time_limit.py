"""Sources that hang, and files that are whole."""

import os
import threading
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from dcft_jax.data import prepare, splits
from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.data.time_limit import within


def test_results_and_errors_come_through():
    assert within(60, lambda: 7) == 7
    with pytest.raises(KeyError, match="gone"):
        within(60, lambda: {}["gone"])


def test_a_hang_ends():
    forever = threading.Event()
    with pytest.raises(TimeoutError, match=r"not done after 0\.05 s"):
        within(0.05, forever.wait)
    forever.set()


def test_a_source_that_hangs_is_named(tiny_config: ConfigDict, monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(splits, "open_source", lambda *_, **__: answer.wait())
    tiny_config.data.source_timeout_s = 0.2
    with pytest.raises(
        TimeoutError,
        match=r"abilities\.maths\.sources\.rows.*0\.2 s.*data\.source_timeout_s",
    ):
        prepare(tiny_config)
    answer.set()


def test_files_are_written_whole_and_by_the_umask(tmp_path: Path):
    path = tmp_path / "new" / "file.json"
    before = os.umask(0o077)
    try:
        atomic_write(path, "private")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    before = os.umask(0o022)
    try:
        atomic_write(path, b"public")
    finally:
        os.umask(before)
    assert path.read_text() == "public"
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(AttributeError):
        atomic_write(path, None)  # type: ignore[arg-type]
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]
    assert path.read_text() == "public"
