"""What is not finite is left out and counted, and ends the run if it stays."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax.training import loop
from dcft_jax.training.run import Run
from tests.training.test_bad_input import start

COUNT = "train/nonfinite/code"


def poison(run: Run, abilities: tuple[str, ...], steps: range) -> Run:
    """Rows that no model has a loss for, in the slots of abilities, in some steps."""
    step = run.program.train_step
    places = [run.abilities.index(name) for name in abilities]

    def broken(state, frozen, batch):
        if int(state.step) in steps:
            hit_S = np.isin(np.asarray(batch["ability_S"]), places)
            tokens_SBL = np.array(batch["tokens_SBL"])
            tokens_SBL[hit_S] = 10**6  # no such token
            layout = batch["tokens_SBL"].sharding
            batch = batch | {"tokens_SBL": jax.device_put(tokens_SBL, layout)}
        return step(state, frozen, batch)

    program = dataclasses.replace(run.program, train_step=broken)
    return dataclasses.replace(run, program=program)


def saved_steps(workdir: Path) -> list[int]:
    return sorted(int(folder.name) for folder in (workdir / "checkpoints").iterdir())


def test_an_ability_that_is_not_finite_is_left_out_counted_and_told(
    tiny_config: ConfigDict, tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = start(tiny_config, tmp_path / "run")
    run = dataclasses.replace(run, console=Console(width=200))
    summary = loop.train(poison(run, ("code",), range(2, 4)))
    said = capsys.readouterr().out
    for step, count in ((3, 1), (4, 2)):
        assert f"gradient of code is not finite at step {step}" in said
        assert f"Steps so far: code {count}." in said
    rows = [*map(json.loads, (tmp_path / "run" / "metrics.jsonl").open())]
    counts = {r["step"]: r[COUNT] for r in rows if COUNT in r}
    assert counts == {4: 2, 6: 2}
    assert not any("train/loss/code" in row for row in rows if row["step"] == 4)
    assert np.isfinite(summary["abilities"]["code"]["test_loss_after"])


def test_an_ability_that_is_never_finite_ends_the_run(
    tiny_config: ConfigDict, tmp_path: Path
):
    tiny_config.run.max_nonfinite = 2
    run = start(tiny_config, tmp_path / "run")
    with pytest.raises(
        FloatingPointError,
        match=r"code is not finite at step 5, as in 2 .*run.max_nonfinite = 2",
    ):
        loop.train(poison(run, ("code",), range(3, 9)))
    assert saved_steps(tmp_path / "run")[-1] == 4


def test_nothing_finite_ends_the_run_at_once_and_keeps_the_checkpoint(
    tiny_config: ConfigDict, tmp_path: Path
):
    run = start(tiny_config, tmp_path / "run")
    with pytest.raises(
        FloatingPointError, match="maths, code, general is not finite at step 4"
    ):
        loop.train(poison(run, run.abilities, range(3, 9)))
    assert saved_steps(tmp_path / "run")[-1] == 2
