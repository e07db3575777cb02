"""The weights of an earlier run again: what separates a schedule from its average."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from dcft_jax.mixture.checks import require
from dcft_jax.mixture.rule import MixtureRule

MODES = ("mean", "path", "shuffled")


def replay(
    run: str,
    abilities: Sequence[str],
    num_steps: int,
    seed: int,
    mode: str = "mean",
) -> MixtureRule:
    """Weights from a finished run's `summary.json`; it looks at no measurement.

    "mean": their average over the steps, as a static mixture; the control of
    Velocitune (arXiv:2411.14318, section 4). "path": the weights at the same steps.
    "shuffled": the same weights for the same numbers of steps, in random order: an
    average is kept, a schedule is not. Steps between two updates of this run keep the
    weights of the earlier update, so it should evaluate as often as the other run did.

    Args:
      run: its work directory.
      abilities: of this run; must be those of the other, in their order.
      num_steps: of this run; must be the other's.
      seed: of the order, for "shuffled".
      mode: one of `MODES`.

    Raises:
      ValueError: for another mode, abilities or length, and a run without weights.
      FileNotFoundError: if there is no finished run.
    """
    require(mode in MODES, "mode", mode, f"one of {MODES}")
    step_U, weight_UK = load_path(run, abilities, num_steps)
    length_U = np.diff([*step_U, num_steps])
    if mode == "mean":
        mean_K = length_U @ weight_UK / length_U.sum()
        step_U, weight_UK = np.zeros(1, int), mean_K[None]
    elif mode == "shuffled":
        step_U, weight_UK = _shuffle(length_U, weight_UK, seed)
    steps, path_UK = jnp.asarray(step_U, jnp.int32), jnp.asarray(weight_UK, jnp.float32)

    def weights(step):
        latest = jnp.searchsorted(steps, step, side="right") - 1
        return path_UK[jnp.maximum(latest, 0)]

    return MixtureRule(
        init=lambda prior_K: jnp.zeros((), jnp.int32),
        update=lambda feedback, state: jnp.asarray(feedback.step, jnp.int32),
        weights=weights,
    )


def load_path(
    run: str, abilities: Sequence[str], num_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Steps `[U]` at which the weights of a run changed, and the weights `[U, K]`."""
    path = Path(run) / "summary.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"mixture.replay.run is {run!r}, but {path} is not there: give the work "
            "directory of a finished run."
        )
    summary = json.loads(path.read_text())
    names = list(summary["abilities"])
    require(
        names == list(abilities),
        "replay.run",
        f"{run!r} with the abilities {names}",
        f"a run with {list(abilities)}",
    )
    require(
        summary["num_steps"] == num_steps,
        "replay.run",
        f"{run!r} of {summary['num_steps']} steps",
        f"a run of {num_steps}",
    )
    entries = [(s, w) for s, w in summary["weights_path"] if s < num_steps]
    require(bool(entries), "replay.run", repr(run), "a run that logged its weights")
    step_U, weight_UK = (np.asarray(column) for column in zip(*entries, strict=True))
    # As they were: renormalised, some would differ in their last bit.
    return step_U.astype(int), weight_UK


def _shuffle(length_U, weight_UK, seed) -> tuple[np.ndarray, np.ndarray]:
    # In pieces of one length, as long as any change allows: those between updates.
    unit = math.gcd(*(int(length) for length in length_U))
    pieces = np.repeat(weight_UK, length_U // unit, axis=0)
    order = np.random.default_rng(seed).permutation(len(pieces))
    return unit * np.arange(len(pieces)), pieces[order]
