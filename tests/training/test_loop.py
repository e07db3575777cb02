"""A whole run: it learns, moves the mixture, and leaves what it promises."""

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax.config import from_plain, to_plain
from dcft_jax.reporting import load_history
from dcft_jax.training.loop import train
from dcft_jax.training.run import open_run

QUIET = Console(quiet=True)


def run_it(config: ConfigDict, folder: Path):
    run = open_run(config, folder, QUIET, jax.devices()[:1])
    return run, train(run)


@pytest.fixture
def connections() -> Iterator[list]:
    """The addresses that Python code connects to while the test runs."""
    found, watching = [], True

    def hook(event: str, arguments: tuple) -> None:
        if watching and event in ("socket.connect", "socket.getaddrinfo"):
            found.append(arguments)

    sys.addaudithook(hook)  # for the rest of the process: there is no way back
    yield found
    watching = False


@pytest.mark.slow
def test_a_run_learns_and_leaves_a_record(
    tiny_config: ConfigDict, tmp_path: Path, connections: list
):
    tiny_config.run.update(num_steps=40, eval_every=10, save_every=20, log_every=5)
    tiny_config.logging.tensorboard = True
    run, summary = run_it(tiny_config, tmp_path / "run")
    assert list(summary["abilities"]) == ["maths", "code", "general"]
    for ability in summary["abilities"].values():
        assert ability["test_loss_after"] < 0.8 * ability["test_loss_before"]
        assert ability["test_examples"] == ability["scored_examples"] == 24
    steps, weights = zip(*summary["weights_path"], strict=True)
    assert steps == (0, 10, 20, 30, 40)
    np.testing.assert_allclose(np.sum(weights, axis=1), 1.0, rtol=1e-5)
    assert not np.allclose(weights[-1], weights[0])
    assert summary["tokens"] == 40 * 4 * 2 * 64
    on_disk = json.loads((run.workdir / "summary.json").read_text())
    assert on_disk == json.loads(json.dumps(summary))
    assert "<svg" in (run.workdir / "report.html").read_text()
    assert list((run.workdir / "tensorboard").iterdir())
    # Nothing was compiled twice: not after evaluation, not for the last batch.
    program = run.program
    assert program.train_step._cache_size() == program.eval_step._cache_size() == 1
    assert not connections, "nobody asked for the network"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", 1))
    assert connections


@pytest.mark.slow
def test_slots_and_rows_follow_the_weights(tiny_config: ConfigDict, tmp_path: Path):
    tiny_config.mixture.update(rule="static", prior="given")
    for ability, weight in zip(
        tiny_config.abilities.values(), (0.5, 0.375, 0.125), strict=True
    ):
        ability.weight = weight
    tiny_config.run.update(num_steps=8, eval_every=4, log_every=1)
    run, summary = run_it(tiny_config, tmp_path / "run")
    history = load_history(run.workdir)
    slots_TK = history.per_ability("mixture/slots")
    slots_TK = slots_TK[~np.isnan(slots_TK).any(axis=1)]
    np.testing.assert_array_equal(slots_TK.sum(axis=0), [16, 12, 4])  # of 8 x 4
    epochs_K = history.per_ability("mixture/epochs")[-1]
    rows_K = epochs_K * run.program.composition.rows_per_epoch_C
    assert [w for _, w in summary["weights_path"]] == [[0.5, 0.375, 0.125]] * 2
    np.testing.assert_allclose(
        rows_K[np.isfinite(rows_K)], np.array([32, 24, 8])[np.isfinite(rows_K)]
    )


@pytest.mark.slow
def test_a_finished_run_started_again_only_shows_its_result(
    tiny_config: ConfigDict, tmp_path: Path
):
    run, first = run_it(tiny_config, tmp_path / "run")
    before = (run.workdir / "metrics.jsonl").read_bytes()
    _, again = run_it(tiny_config, tmp_path / "run")
    assert again == first
    assert (run.workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_sharded_run_is_the_same_run(tiny_config: ConfigDict, tmp_path: Path):
    """The whole loop on 8 devices against 1, checkpoints and evaluation included."""
    tiny_config.run.update(num_steps=3, eval_every=3, save_every=3)
    _, one = run_it(tiny_config, tmp_path / "one")
    tiny_config.mesh.update(ability=2, data=2, model=2)
    run = open_run(tiny_config, tmp_path / "eight", QUIET)
    many = train(run)
    for name, ability in one["abilities"].items():
        for key in ("test_loss_before", "test_loss_after"):
            np.testing.assert_allclose(
                many["abilities"][name][key], ability[key], rtol=1e-4
            )


@pytest.mark.slow
def test_seeds_share_the_splits_and_not_the_order(
    tiny_config: ConfigDict, tmp_path: Path
):
    """Else runs that start from a model would be the same in every seed."""
    first, second = (
        open_run(with_seed(tiny_config, s), tmp_path / str(s), QUIET, jax.devices()[:1])
        for s in (0, 1)
    )
    assert first.data.content_hash == second.data.content_hash
    for one, other in zip(first.streams, second.streams, strict=True):
        assert any(np.any(one[i]["tokens"] != other[i]["tokens"]) for i in range(4))


def with_seed(config: ConfigDict, seed: int) -> ConfigDict:
    config = from_plain(to_plain(config))
    config.run.seed = seed
    return config


def test_seeds_differ_and_repeat(tiny_config: ConfigDict, tmp_path: Path):
    tiny_config.run.update(num_steps=2, eval_every=2)
    losses = []
    for number, seed in enumerate((0, 0, 1)):
        tiny_config.run.seed = seed
        _, summary = run_it(tiny_config, tmp_path / str(number))
        losses.append([a["test_loss_after"] for a in summary["abilities"].values()])
    assert losses[0] == losses[1] != losses[2]
