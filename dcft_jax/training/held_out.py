"""Held-out splits on the devices, and their scores."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dcft_jax.data import ROW_FIELDS, Rows, eval_batches
from dcft_jax.evaluation.losses import Scores, score_split
from dcft_jax.sharding import place
from dcft_jax.training.run import Run

# One split of an ability: device batch, example_SBM, scored_SBM.
EvalSet = list[tuple[dict[str, jax.Array], np.ndarray, np.ndarray]]


def place_split(run: Run, split: str) -> list[EvalSet]:
    """Puts a held-out split of every ability on the devices, in training shape.

    All sets have one shape, so that evaluation compiles once.
    """
    num_segments = max(
        rows.scored_NM.shape[1]
        for splits in run.data.rows.values()
        for name, rows in splits.items()
        if name != "train"
    )
    return [
        _place_rows(run, run.data.rows[name][split], num_segments)
        for name in run.abilities
    ]


def _place_rows(run: Run, rows: Rows, num_segments: int) -> EvalSet:
    slots = (run.config.data.num_slots, run.config.data.rows_per_slot)

    def pad(x_NM: np.ndarray, fill: int) -> np.ndarray:
        missing = num_segments - x_NM.shape[1]
        x_NM = np.pad(x_NM, ((0, 0), (0, missing)), constant_values=fill)
        return x_NM.reshape(*slots, num_segments)

    sets = []
    for batch in eval_batches(rows, run.rows_per_step):
        example_SBM = pad(batch["example_NM"], -1)
        scored_SBM = pad(batch["scored_NM"], 0)
        arrays = {name: batch[f"{name}_NL"].reshape(*slots, -1) for name in ROW_FIELDS}
        arrays["scored"] = scored_SBM
        sets.append(
            (place(arrays, run.mesh, run.program.model.rules), example_SBM, scored_SBM)
        )
    return sets


def score(run: Run, params: Any, sets: Sequence[EvalSet], split: str) -> list[Scores]:
    """Scores of every ability on a split placed by `place_split`, or a part of it."""
    return [
        score_split(
            run.program.eval_step,
            params,
            sets[k],
            run.data.rows[name][split].num_examples,
        )
        for k, name in enumerate(run.abilities)
    ]


def rotate(sets: Sequence[EvalSet], update: int, num_blocks: int) -> list[EvalSet]:
    """The two blocks of each set that are due at an update.

    The second of one update is the first of the next, so that progress is measured on
    the same rows, and what the mixture sees changes. Blocks are made of whole batches;
    a set of fewer batches has that many blocks. Up to two blocks it is all of the set.
    """
    chosen = []
    for batches in sets:
        blocks = min(num_blocks, len(batches))
        due = {update % blocks, (update + 1) % blocks}
        chosen.append([b for i, b in enumerate(batches) if i % blocks in due])
    return chosen
