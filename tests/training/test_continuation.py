"""Going on from another run: added abilities enter at the prior, the rest goes on."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax.training import checkpoint, recovery
from dcft_jax.training.continuation import continue_run
from dcft_jax.training.loop import train
from dcft_jax.training.run import Run, abstract_state, open_run
from dcft_jax.training.state import TrainState
from tests.conftest import make_tiny_config

QUIET = Console(quiet=True)


def last_state(run: Run) -> TrainState:
    with (
        jax.set_mesh(run.mesh),
        checkpoint.open_checkpoints(run.workdir, 1, 100) as checkpoints,
    ):
        state = recovery.restore(checkpoints, abstract_state(run), print)
    assert state is not None
    return state


def two_of_three(task_files: dict[str, Path], cache: Path) -> ConfigDict:
    config = make_tiny_config(task_files, cache)
    del config.abilities["code"]
    config.mixture.options.mirror_descent.update(warmup_updates=0)
    return config


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, task_files: dict[str, Path]) -> Run:
    folder = tmp_path_factory.mktemp("first")
    config = two_of_three(task_files, folder / "cache")
    run = open_run(config, folder / "run", QUIET, jax.devices()[:1])
    train(run)
    return run


def longer(first: Run, config: ConfigDict) -> ConfigDict:
    config.run.update(continue_from=str(first.workdir), num_steps=8)
    config.tokenizer.path = str(first.workdir / "tokenizer.model")
    return config


@pytest.mark.slow
def test_an_added_ability_enters_at_the_prior(
    first: Run, task_files: dict[str, Path], tmp_path: Path
):
    config = longer(first, make_tiny_config(task_files, tmp_path / "cache"))
    config.mixture.options.mirror_descent.update(warmup_updates=0)
    run = open_run(config, tmp_path / "run", QUIET, jax.devices()[:1])
    old = last_state(first)
    with jax.set_mesh(run.mesh):
        new = continue_run(run)
    assert int(new.step) == int(old.step)
    for a, b in zip(
        jax.tree.leaves((old.params, old.opt_state)),
        jax.tree.leaves((new.params, new.opt_state)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    kept = [0, 2]  # maths, general; code is new, between them
    before, after = np.asarray(old.mixture.weights_K), np.asarray(new.mixture.weights_K)
    assert before[0] != before[1]
    # The floor moves with K, so proportions are those of the weights without it.
    log_before = np.asarray(old.mixture.rule.log_weights_K)
    log_after = np.asarray(new.mixture.rule.log_weights_K)
    np.testing.assert_allclose(np.exp(log_after[1]), 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(np.diff(log_after[kept]), np.diff(log_before), rtol=1e-4)
    assert after.sum() == pytest.approx(1)
    np.testing.assert_array_equal(
        new.mixture.rows_C, np.insert(old.mixture.rows_C, 1, 0)
    )
    np.testing.assert_array_equal(
        np.asarray(new.mixture.best_step_K)[kept], old.mixture.best_step_K
    )
    summary = train(run)
    assert list(summary["abilities"]) == ["maths", "code", "general"]


@pytest.mark.slow
def test_with_the_same_abilities_nothing_is_lost(
    first: Run, task_files: dict[str, Path], tmp_path: Path
):
    config = longer(first, two_of_three(task_files, tmp_path / "cache"))
    run = open_run(config, tmp_path / "run", QUIET, jax.devices()[:1])
    old = last_state(first)
    with jax.set_mesh(run.mesh):
        new = continue_run(run)
    for (path, a), b in zip(
        jax.tree.leaves_with_path(old.mixture),
        jax.tree.leaves(new.mixture),
        strict=True,
    ):
        where = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6, err_msg=where)


@pytest.mark.slow
def test_what_does_not_fit_is_refused(
    first: Run, task_files: dict[str, Path], tmp_path: Path
):
    config = longer(first, make_tiny_config(task_files, tmp_path / "cache"))
    del config.abilities["maths"]
    run = open_run(config, tmp_path / "dropped", QUIET, jax.devices()[:1])
    with pytest.raises(ValueError, match=r"trained \['maths'\].*not dropped"):
        continue_run(run)
    config = longer(first, make_tiny_config(task_files, tmp_path / "cache"))
    config.tokenizer.path = ""
    run = open_run(config, tmp_path / "tokens", QUIET, jax.devices()[:1])
    with jax.set_mesh(run.mesh), pytest.raises(ValueError, match="another tokenizer"):
        continue_run(run)


def test_streams_of_old_abilities_do_not_change(
    task_files: dict[str, Path], tmp_path: Path, first: Run
):
    config = longer(first, make_tiny_config(task_files, tmp_path / "cache"))
    run = open_run(config, tmp_path / "run", QUIET, jax.devices()[:1])
    for old, new in ((0, 0), (1, 2)):
        for index in (0, 7, 1000):
            a, b = first.streams[old][index], run.streams[new][index]
            np.testing.assert_array_equal(a["tokens"], b["tokens"])
    assert json.loads((first.workdir / "config.json").read_text())["abilities"]
