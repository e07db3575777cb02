"""Files and folders are there whole, or not at all."""

import os
from pathlib import Path

import pytest

from dcft_jax.data.atomic_write import atomic_folder, atomic_write


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


def write_two(folder: Path) -> None:
    (folder / "one").write_text("1")
    (folder / "deep").mkdir()
    (folder / "deep" / "two").write_text("2")


@pytest.mark.parametrize("failure", [OSError, KeyboardInterrupt])
def test_half_a_folder_goes(tmp_path: Path, failure: type[BaseException]):
    with pytest.raises(failure), atomic_folder(tmp_path / "new") as folder:
        write_two(folder)
        raise failure
    assert not list(tmp_path.iterdir())


def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch):
    kept: list[int] = []
    fsync, replace = os.fsync, os.replace

    def note(handle: int) -> None:
        kept.append(os.fstat(handle).st_ino)
        fsync(handle)

    def check(source: Path, target: Path) -> None:
        paths = [source, *source.rglob("*")]
        assert len(paths) == 4
        assert {path.stat().st_ino for path in paths} == set(kept)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", check)
    with atomic_folder(tmp_path / "deep" / "new") as folder:
        write_two(folder)
        assert not (tmp_path / "deep" / "new").exists()
    assert (tmp_path / "deep" / "new" / "deep" / "two").read_text() == "2"
    assert kept[-1] == (tmp_path / "deep").stat().st_ino  # which holds the name


def test_a_folder_with_something_in_it_is_not_replaced(tmp_path: Path):
    target = tmp_path / "there"
    target.mkdir()
    with atomic_folder(target) as folder:
        write_two(folder)
    with pytest.raises(OSError), atomic_folder(target) as folder:
        (folder / "other").write_text("3")
    assert sorted(p.name for p in target.iterdir()) == ["deep", "one"]
    assert list(tmp_path.iterdir()) == [target]
