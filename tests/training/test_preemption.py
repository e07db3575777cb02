"""SIGTERM: the state is saved at the next step boundary; the run goes on from it."""

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax.training import loop, preemption
from dcft_jax.training.run import Run, open_run

QUIET = Console(quiet=True)


def test_the_notice_is_taken_once_and_the_old_handler_comes_back():
    calls = []
    before = signal.signal(signal.SIGTERM, lambda *_: calls.append("old"))
    try:
        with preemption.notice() as reached:
            assert not reached(3)
            signal.raise_signal(signal.SIGTERM)
            assert reached(3)
            assert not calls
            signal.raise_signal(signal.SIGTERM)
            assert calls == ["old"]
        signal.raise_signal(signal.SIGTERM)
        assert calls == ["old", "old"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_sigterm_ends_the_process_at_once():
    child = (
        "import signal\n"
        "from dcft_jax.training.preemption import notice\n"
        "with notice():\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('noticed', flush=True)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('still here', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True)
    assert done.stdout == "noticed\n"
    assert done.returncode == -signal.SIGTERM


def test_several_processes_agree_on_a_step(monkeypatch):
    """As jax.distributed says: its handler, then one step for all processes."""
    asked = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(
        preemption.multihost_utils,
        "reached_preemption_sync_point",
        lambda step: asked.append(step) or step == 5,
    )
    before = signal.getsignal(signal.SIGTERM)
    with preemption.notice() as reached:
        assert signal.getsignal(signal.SIGTERM) is before
        assert [reached(step) for step in (4, 5)] == [False, True]
    assert asked == [4, 5]


def terminated_in(run: Run, step: int) -> Run:
    """The run, sent SIGTERM by the machine while it takes a step."""
    train_step = run.program.train_step

    def told(state, frozen, batch):
        if int(state.step) == step:
            signal.raise_signal(signal.SIGTERM)
        return train_step(state, frozen, batch)

    program = dataclasses.replace(run.program, train_step=told)
    return dataclasses.replace(run, program=program)


def test_sigterm_saves_within_the_step_and_the_run_goes_on(
    tiny_config: ConfigDict, tmp_path: Path
):
    tiny_config.run.update(num_steps=4, eval_every=4, save_every=4)
    run = open_run(tiny_config, tmp_path / "run", QUIET, jax.devices()[:1])
    with pytest.raises(preemption.Preempted, match="saved at step 3; the same command"):
        loop.train(terminated_in(run, 2))
    saved = {int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()}
    assert saved == {0, 3}
    summary = loop.train(run)
    assert (tmp_path / "run" / "summary.json").exists()
    assert set(summary["abilities"]) == set(run.abilities)
