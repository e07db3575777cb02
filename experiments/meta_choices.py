"""What the simple methods choose for a new task, as starts of full runs.

They learn from what the network in the package was fitted on, and see the embedding
that a run with a predicted prior sees.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.meta import EXPERIENCE, Features, cases, merge, open_store
from dcft_jax.meta.baselines import METHODS
from dcft_jax.meta.case import Case
from dcft_jax.meta.families import TEST_TASKS
from dcft_jax.meta.regret import Solved, solve
from dcft_jax.meta.worlds import Settings
from dcft_jax.training.meta_prior import embedded
from experiments.meta_data import SMALLEST, choices_path, world_of
from experiments.meta_runs import CHOOSERS, run_config


def prepare_choices(
    settings: Settings,
    seeds: Sequence[int],
    tasks: Sequence[str],
    folder: Path,
    console: Console,
) -> None:
    """Writes what is not there yet, after `meta_data.prepare`."""
    missing = [
        (seed, task)
        for seed in seeds
        for task in tasks
        if not choices_path(folder, seed, task).is_file()
    ]
    for seed, task in track(missing, "what the methods choose", console=console):
        config = run_config(settings, seed, task, "meta", folder)
        features, abilities = embedded(config, Console(quiet=True))
        if abilities != world_of(settings, seed).names:
            raise AssertionError(f"seed {seed}: the abilities are in another order")
        found = choose(_known(), task, abilities, features)
        path = choices_path(folder, seed, task)
        atomic_write(path, json.dumps({m: w_K.tolist() for m, w_K in found.items()}))


def choose(
    known: Sequence[Solved], task: str, abilities: Sequence[str], features: Features
) -> dict[str, np.ndarray]:
    """The mixture of each of `CHOOSERS`, positive."""
    K = len(abilities)
    case = Case(
        world="",
        task=task,
        category="",
        abilities=tuple(abilities),
        features=features,
        weights_NK=np.zeros((0, K)),
        loss_N=np.zeros(0),
        accuracy_N=np.zeros(0),
        seed_N=np.zeros(0, np.int64),
    )
    prior_K = features.size_K / features.size_K.sum()
    chosen = {name: METHODS[name](known, case, prior_K) for name in CHOOSERS}
    return {m: (1 - SMALLEST * K) * w_K + SMALLEST for m, w_K in chosen.items()}


@cache
def _known() -> list[Solved]:
    store = open_store(":memory:")
    merge(store, [EXPERIENCE])
    found = [case for case in cases(store) if case.task not in TEST_TASKS]
    store.close()
    return solve(found)
