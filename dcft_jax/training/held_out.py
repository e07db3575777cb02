"""Held-out splits on the devices, and their scores."""

from collections.abc import Sequence
from typing import Any

from dcft_jax.evaluation.losses import Scores, score_split
from dcft_jax.evaluation.rows import EvalBatch, place_rows
from dcft_jax.training.run import Run

EvalSet = list[EvalBatch]  # one split of an ability


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
    slots = (run.config.data.num_slots, run.config.data.rows_per_slot)
    mesh, rules = run.mesh, run.program.model.rules
    return [
        list(place_rows(run.data.rows[name][split], slots, mesh, rules, num_segments))
        for name in run.abilities
    ]


def score(run: Run, params: Any, sets: Sequence[EvalSet], split: str) -> list[Scores]:
    """Scores of every ability on a split placed by `place_split`, or a part of it.

    `params` are the trained ones.
    """
    return [
        score_split(
            run.program.eval_step,
            run.full(params),
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
