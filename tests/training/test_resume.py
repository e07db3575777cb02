"""A run that was stopped anywhere continues as if it had never been."""

import dataclasses
import errno
import io
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from dcft_jax.reporting import open_writers
from dcft_jax.reporting.patient_file import PatientFile
from dcft_jax.training import checkpoint, loop, recovery
from dcft_jax.training.full_disk import NotSavedError
from dcft_jax.training.loop import train
from dcft_jax.training.provenance import changes
from dcft_jax.training.run import Run, abstract_state, open_run
from dcft_jax.training.state import TrainState
from tests.full_disk_run import fill_disk

QUIET = Console(quiet=True)
TIMES = (
    *("wall_s", "run/eval_s", "run/generate_s", "run/extra_s"),
    *("train/step_s", "train/tokens_per_s"),
)


def final_state(run: Run) -> TrainState:
    with (
        jax.set_mesh(run.mesh),
        checkpoint.open_checkpoints(run.workdir, 1, 100) as checkpoints,
    ):
        state = recovery.restore(checkpoints, abstract_state(run), print)
    assert state is not None
    return state


def assert_same_bits(a: TrainState, b: TrainState) -> None:
    for (path, x), y in zip(
        jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        where = jax.tree_util.keystr(path)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=where)


def records(workdir: Path) -> list[dict]:
    """The rows of metrics.jsonl without what a clock says."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def cut_at(run: Run, step: int, workdir: Path) -> Run:
    """The same run as it was on disk when killed right after saving `step`."""
    shutil.copytree(run.workdir, workdir)
    (workdir / "summary.json").unlink()
    for folder in (workdir / "checkpoints").iterdir():
        if folder.name.isdigit() and int(folder.name) > step:
            shutil.rmtree(folder)
    return dataclasses.replace(run, workdir=workdir)


@pytest.fixture(scope="module")
def straight(
    tmp_path_factory: pytest.TempPathFactory, task_files: dict[str, Path]
) -> Run:
    from tests.conftest import make_tiny_config

    folder = tmp_path_factory.mktemp("straight")
    config = make_tiny_config(task_files, folder / "cache")
    config.run.update(save_every=1, keep_checkpoints=100)
    # The most state there is: coefficients of the last step, targets, an average.
    config.conflict.update(engine="lagged", resolver="gradvac", ema_weights=0.9)
    # And of the mixture: tiers, rotating rows, fitted references, an extra pass.
    config.abilities.maths.tiers.update(by="length", count=2)
    config.mixture.update(references="fitted", mix_val_blocks=2)
    config.mixture.tiers.rule = "bandit"
    ours = config.mixture.options.mirror_descent
    ours.update(objective="worst", warmup_updates=0)
    ours.signals = {"normalised_gap": 1.0, "gradient_alignment": 1.0}
    run = open_run(config, folder / "run", QUIET, jax.devices()[:1])
    train(run)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("step", range(7))
def test_resume_is_bit_exact_at_every_step(straight: Run, step: int, tmp_path: Path):
    run = cut_at(straight, step, tmp_path / "run")
    summary = train(run)
    assert_same_bits(final_state(run), final_state(straight))
    assert records(run.workdir) == records(straight.workdir)
    before = json.loads((straight.workdir / "summary.json").read_text())
    assert summary["abilities"] == before["abilities"]
    assert summary["weights_path"] == before["weights_path"]


@pytest.mark.slow
def test_code_and_packages_that_changed_are_told(
    straight: Run, tmp_path: Path, monkeypatch
):
    output = io.StringIO()
    console = Console(file=output, width=200)
    run = dataclasses.replace(cut_at(straight, 6, tmp_path / "same"), console=console)
    train(run)
    assert "Resuming" in output.getvalue() and "changed since" not in output.getvalue()
    cut = cut_at(straight, 6, tmp_path / "other")
    known = run.metadata()
    other = known | {"code": "0ther000"}
    other["versions"] = known["versions"] | {"optax": "9.9"}
    monkeypatch.setattr(Run, "metadata", lambda self: other)
    train(dataclasses.replace(cut, console=console))
    optax = known["versions"]["optax"]
    told = f"optax {optax} -> 9.9, dcft_jax's code {known['code']} -> 0ther000. The run"
    assert f"warning: changed since step 6 was saved: {told}" in output.getvalue()


def test_what_an_old_checkpoint_does_not_tell_is_no_change():
    now = {"versions": {"jax": "2", "flax": "1"}, "code": "a"}
    assert changes({}, now) == []
    assert changes({"versions": {"jax": "1", "old": "1"}}, now) == ["jax 1 -> 2"]


@pytest.mark.slow
def test_on_a_full_disk_the_results_are_told_and_then_nothing_is_lost(
    straight: Run, tmp_path: Path, monkeypatch
):
    cut = cut_at(straight, 5, tmp_path / "run")
    output = io.StringIO()
    run = dataclasses.replace(cut, console=Console(file=output, width=200))

    def then_full(*args):
        writer = open_writers(*args)
        patch.setattr(PatientFile, "_write_waiting", no_space)
        fill_disk(re.escape(str(run.workdir)), patch.setattr)
        return writer

    with monkeypatch.context() as patch:
        patch.setattr(loop, "open_writers", then_full)
        with pytest.raises(NotSavedError, match=r"free some, .* goes on from step 5"):
            train(run)
    before = json.loads((straight.workdir / "summary.json").read_text())
    said = output.getvalue()
    assert "a checkpoint was not saved, the run goes on (that of step 5" in said
    assert "metrics.jsonl lacks 2 rows, of steps 6 to 6" in said
    assert said.count("no space left for") == 2  # summary.json and report.html
    for ability in before["abilities"].values():
        assert f"{ability['test_loss_after']:.3f}" in said
    assert not (run.workdir / "summary.json").exists()
    assert train(cut)["abilities"] == before["abilities"]
    assert_same_bits(final_state(cut), final_state(straight))
    assert records(cut.workdir) == records(straight.workdir)


def no_space(*_) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
