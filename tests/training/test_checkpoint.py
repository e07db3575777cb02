"""Which checkpoints are kept."""

from pathlib import Path

import jax.numpy as jnp

from dcft_jax.training import checkpoint


def saved_steps(folder: Path, losses: list[dict], keep: int, best_of) -> list[int]:
    with checkpoint.open_checkpoints(folder, 1, keep, best_of) as checkpoints:
        for step, loss in enumerate(losses):
            state = {"x": jnp.full(2, float(step))}
            checkpoint.save(checkpoints, step, state, {}, loss)  # type: ignore[arg-type]
        checkpoints.wait()
        return [saved.step for saved in checkpoints.checkpoints]


LOSSES = [
    {"a": 3.0, "b": 1.0},  # the best of b
    {"a": 2.0, "b": 2.0},
    {"a": 1.0, "b": 3.0},  # the best of a
    {},  # saved between two evaluations
    {"a": 4.0, "b": 4.0},
]


def test_the_best_of_every_ability_is_kept_beside_the_latest(tmp_path: Path):
    assert saved_steps(tmp_path / "best", LOSSES, 1, ("a", "b")) == [0, 2, 4]
    assert saved_steps(tmp_path / "latest", LOSSES, 2, ()) == [3, 4]
