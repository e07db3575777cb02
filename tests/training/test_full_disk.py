"""Saving onto a full disk: a real one where it can be mounted."""

import contextlib
import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.training import checkpoint, full_disk


def state_of(step: int) -> Any:
    noise = np.random.default_rng(step).normal(size=40_000).astype(np.float32)
    return {"x": jnp.asarray(noise)}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 700 kB: four checkpoints of 160 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def saved_steps(checkpoints: Any) -> list[int]:
    return [saved.step for saved in checkpoints.checkpoints]


def save(checkpoints: Any, step: int, said: list[str]) -> None:
    checkpoint.save(checkpoints, step, state_of(step), {})
    full_disk.wait_for_save(checkpoints, said.append)


def test_a_full_disk_costs_a_checkpoint_and_is_tried_again(small_disk: Path):
    said: list[str] = []
    ballast = small_disk / "ballast"
    with checkpoint.open_checkpoints(small_disk, 1, 1) as checkpoints:
        save(checkpoints, 1, said)
        ballast.write_bytes(bytes(400_000))
        save(checkpoints, 2, said)
        assert len(said) == 1
        assert "that of step 1 is kept" in said[0]
        assert saved_steps(checkpoints) == [1]
        folder = small_disk / "checkpoints"
        assert [p.name for p in folder.iterdir()] == ["1"]  # half of 2 is gone
        unsaved = full_disk.find_unsaved(checkpoints, 2, said.append)
        assert "goes on from step 1" in str(unsaved)
        ballast.unlink()
        save(checkpoints, 3, said)
        assert full_disk.find_unsaved(checkpoints, 3, said.append) is None
        assert len(said) == 1
        assert saved_steps(checkpoints) == [3]


def test_the_error_may_come_at_once_late_or_in_words():
    @contextlib.contextmanager
    def wrapped(kind: type[Exception]):
        try:
            yield
        except OSError as error:
            raise kind("a thread died") from error

    with pytest.raises(ValueError, match="a thread died") as late, wrapped(ValueError):
        raise OSError(errno.ENOSPC, "full")
    assert full_disk.is_full_disk(late.value)
    assert full_disk.is_full_disk(OSError(errno.EDQUOT, "over quota"))
    assert full_disk.is_full_disk(
        ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device")
    )
    assert not full_disk.is_full_disk(ValueError("RESOURCE_EXHAUSTED: out of memory"))
    assert not full_disk.is_full_disk(OSError(errno.EACCES, "Permission denied"))


def test_other_errors_of_a_save_end_the_run(tmp_path: Path, monkeypatch):
    with checkpoint.open_checkpoints(tmp_path, 1, 1) as checkpoints:

        def wait() -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(checkpoints, "wait", wait)
        with pytest.raises(OSError, match="Input/output"):
            full_disk.wait_for_save(checkpoints, print)
