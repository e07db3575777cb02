"""Trains what the methods choose for tasks they have not seen, so that it is measured.

Regret by a surrogate law is a guess. Here every mixture that a method chooses for a
task of a category left out is trained, in the world it was chosen for and with the data
order of the sweep there, and added to the store: `report` then finds a trained model at
the mixture of every method. Nothing is learnt from these models (source "proof"), so
that the methods choose the same mixtures once they are there.
"""

import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

from dcft_jax.meta.ablation import ablations
from dcft_jax.meta.case import Case
from dcft_jax.meta.collect import train_mixtures, world_name, world_rows
from dcft_jax.meta.experience import PROVED, cases, open_store
from dcft_jax.meta.fit import DEFAULT, Options
from dcft_jax.meta.lab import make_lab
from dcft_jax.meta.leave_out import Row, leave_one_category_out
from dcft_jax.meta.regret import measured_mixtures, solve
from dcft_jax.meta.worlds import Settings, draw_world

SAME = 0.01  # mixtures that differ by less, in total variation, are one model


def prove(
    settings: Settings,
    store_path: str | os.PathLike,
    worlds: Sequence[int],
    tasks: Collection[str] | None,
    work_dir: str | os.PathLike | None = None,
    options: Options = DEFAULT,
    ablation: bool = False,
    console: Console | None = None,
) -> int:
    """Trains the mixtures that are not measured yet; returns how many there were.

    Args:
      settings, store_path, work_dir, console: see `collect`.
      worlds: that are in the store.
      tasks: that mixtures are chosen for, `test_tasks` of `leave_one_category_out`.
      options: of the network.
      ablation: train also what the networks of the ablations in `report` choose.

    Raises:
      ValueError: a world is not in the store; see `leave_one_category_out`.
    """
    store = open_store(store_path)
    try:
        known, proved = cases(store), cases(store, sources=PROVED)
        chosen = chosen_mixtures(
            settings, known, proved, worlds, tasks, options, ablation
        )
        blocks = {
            index: blocks_of(weights_NK, settings.models)
            for index, weights_NK in chosen.items()
        }
        folder = Path(work_dir or f"{store_path}.work") / settings.identity
        lab = make_lab(settings, folder)
        if tasks is not None:  # nothing else is asked of these models
            asked = {task: rows for task, rows in lab.test.items() if task in tasks}
            lab = lab._replace(test=asked)
        total = sum(map(len, blocks.values())) * settings.training.steps
        columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("steps of populations", total=total)
            for index in blocks:
                world = draw_world(settings, index)
                rows = world_rows(lab, world)
                for number, (weights_NK, seed_N) in enumerate(blocks[index]):
                    path = lab.folder / f"proof-{index:04d}-{number}.npz"
                    train_mixtures(
                        *(lab, store, world, rows, weights_NK, seed_N, path),
                        lambda steps: progress.advance(bar, steps),
                        source="proof",
                    )
                    path.unlink(missing_ok=True)
    finally:
        store.close()
    return sum(map(len, chosen.values()))


def chosen_mixtures(
    settings: Settings,
    known: Sequence[Case],
    proved: Sequence[Case],
    worlds: Sequence[int],
    tasks: Collection[str] | None,
    options: Options = DEFAULT,
    ablation: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[int, np.ndarray]:
    """World -> the mixtures of all methods for all tasks, [N, K], but the measured.

    `known`: what is learnt from; `proved`: also what has been trained before.
    """
    names = {
        world_name(settings, index, settings.training.steps): index for index in worlds
    }
    there = {(case.world, case.task): case for case in proved}
    missing = [i for name, i in names.items() if name not in {w for w, _ in there}]
    if missing:
        raise ValueError(f"worlds {missing} are not in the store; `collect` them first")
    solved = solve(known)
    rows_of = partial(
        leave_one_category_out,
        solved,
        options=options,
        seeds=(0,),
        test_tasks=tasks,
        test_worlds=names,
        progress=progress,
    )
    rows = rows_of()
    if ablation:
        by_part, by_law = ablations(known, rows_of)
        rows += [row for some in (by_part | by_law).values() for row in some]
    new = [row for row in rows if not _is_measured(there[row.world, row.task], row)]
    return {
        index: _distinct([row.weights_K for row in new if row.world == name])
        for name, index in names.items()
    }


def _is_measured(case: Case, row: Row) -> bool:
    return bool(_is_near(measured_mixtures(case)[0], row.weights_K))


def _is_near(known_UK: np.ndarray, weights_K: np.ndarray) -> np.bool:
    return np.any(0.5 * np.abs(known_UK - weights_K).sum(axis=1) < SAME)


def _distinct(wanted: Sequence[np.ndarray]) -> np.ndarray:
    found: list[np.ndarray] = []
    for weights_K in wanted:
        if not found or not _is_near(np.array(found), weights_K):
            found.append(weights_K)
    return np.array(found)


def blocks_of(weights_NK: np.ndarray, most: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Populations of one size, at most `most`, so that one program trains them all.

    The places left in the last one repeat mixtures with another order of the data.
    """
    number = -(-len(weights_NK) // most)
    size = -(-len(weights_NK) // max(number, 1))
    blocks = []
    for first in range(0, len(weights_NK), max(size, 1)):
        part_NK = weights_NK[first : first + size]
        index_N = np.arange(size)
        blocks.append((part_NK[index_N % len(part_NK)], index_N // len(part_NK)))
    return blocks
