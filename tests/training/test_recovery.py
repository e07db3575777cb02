"""Broken checkpoints: the newest that can be read is taken, the others set aside."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.training import checkpoint, recovery
from dcft_jax.training.fingerprint import fingerprint


def state_of(step: int) -> Any:
    x = np.random.default_rng(step).normal(size=(50, 60)).astype(np.float32)
    return {"x": jnp.asarray(x), "step": jnp.int32(step), "acted": jnp.array([True])}


def abstract() -> Any:
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), state_of(0)
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    with checkpoint.open_checkpoints(folder, 1, 5) as checkpoints:
        for step in (1, 2, 3):
            checkpoint.save(checkpoints, step, state_of(step), {"a": 1}, {"a": 0.5})
    return folder


def largest(folder: Path) -> Path:
    files = (file for file in folder.rglob("*") if file.is_file())
    return max(files, key=lambda file: file.stat().st_size)


def cut_off(folder: Path) -> None:
    file = largest(folder)
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(folder: Path) -> None:
    file = largest(folder)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def lose_the_state(folder: Path) -> None:
    shutil.rmtree(folder / "state")


def garble(name: str) -> Callable[[Path], None]:
    def garble_it(folder: Path) -> None:
        (file,) = folder.rglob(name)
        (file if file.is_file() else file / name).write_text('{"a')

    return garble_it


DAMAGES = {
    "cut off": cut_off,
    "flipped bit": flip_a_bit,
    "empty": empty,
    "no state": lose_the_state,
    "array metadata": garble("_METADATA"),
    "metadata": garble("_CHECKPOINT_METADATA"),
    "metrics": garble("metrics/metrics"),
}


def damaged(written: Path, folder: Path, damage: str, steps: tuple[int, ...]) -> Path:
    shutil.copytree(written, folder)
    for step in steps:
        DAMAGES[damage](folder / "checkpoints" / str(step))
    return folder


def reopened(workdir: Path, said: list[str]):
    recovery.set_aside_unlistable(workdir, said.append)
    return checkpoint.open_checkpoints(workdir, 1, 5, ("a",))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_newest_checkpoint_is_set_aside_and_said(
    written: Path, tmp_path: Path, damage: str
):
    workdir, said = damaged(written, tmp_path / "run", damage, (3,)), []
    with reopened(workdir, said) as checkpoints:
        state = recovery.restore(checkpoints, abstract(), said.append)
        assert state is not None
        np.testing.assert_array_equal(state["x"], state_of(2)["x"])  # type: ignore[index]
        assert "step 3 cannot be read" in said[0]
        assert str(workdir / recovery.FOLDER / "3") in said[0]
        assert (workdir / recovery.FOLDER / "3").is_dir()
        assert checkpoints.latest is not None
        assert checkpoints.latest.step == 2
        # The same step is saved again.
        checkpoint.save(checkpoints, 3, state_of(3), {}, {"a": 0.5})
        checkpoints.wait()
        again = checkpoint.load(checkpoints, 3, abstract())
        np.testing.assert_array_equal(again["x"], state_of(3)["x"])  # type: ignore[index]


def test_two_broken_ones_and_one_that_broke_before(written: Path, tmp_path: Path):
    workdir, said = damaged(written, tmp_path / "run", "cut off", (2, 3)), []
    (workdir / recovery.FOLDER / "3").mkdir(parents=True)
    with reopened(workdir, said) as checkpoints:
        state = recovery.restore(checkpoints, abstract(), said.append)
    assert state is not None
    assert int(state["step"]) == 1  # type: ignore[index]
    names = sorted(p.name for p in (workdir / recovery.FOLDER).iterdir())
    assert names == ["2", "3", "3-2"]
    assert said[-1] == "Going back to the checkpoint of step 1."


@pytest.mark.parametrize("damage", ["flipped bit", "metrics"])
def test_if_none_can_be_read_all_stay_and_nothing_starts_over(
    written: Path, tmp_path: Path, damage: str
):
    workdir = damaged(written, tmp_path / "run", damage, (1, 2, 3))
    with (
        pytest.raises(ValueError, match=r"none of the checkpoints \[1, 2, 3\] can be"),
        reopened(workdir, []) as checkpoints,
    ):
        recovery.restore(checkpoints, abstract(), lambda text: None)
    assert len(list((workdir / "checkpoints").iterdir())) == 3


def test_no_checkpoint_is_no_error(tmp_path: Path):
    with reopened(tmp_path, []) as checkpoints:
        assert recovery.restore(checkpoints, abstract(), lambda text: None) is None


def test_fingerprints_see_every_bit_and_no_layout():
    x = jnp.arange(16, dtype=jnp.float32).reshape(8, 2)
    mesh = jax.make_mesh((8,), ("data",))
    split = jax.device_put(x, jax.NamedSharding(mesh, jax.P("data")))
    assert fingerprint({"x": x}) == fingerprint({"x": split})
    for dtype in (jnp.bfloat16, jnp.int8, jnp.int32, jnp.bool):
        y = x.astype(dtype)
        assert fingerprint(y) == fingerprint(y + jnp.zeros_like(y))
        assert fingerprint(y) != fingerprint(y.at[0, 0].set(jnp.ones((), dtype)))
    assert fingerprint(x) != fingerprint(-x)
    assert fingerprint(jnp.float32(0.0)) != fingerprint(jnp.float32(-0.0))
