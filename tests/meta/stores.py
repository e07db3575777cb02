"""Records and features to fill a store with; also a process that does so."""

import itertools
import sys

import numpy as np

from dcft_jax.meta.experience import Outcome, Record, add_run, open_store
from dcft_jax.meta.features import ABILITY, PAIR, TASK, Features

TASKS = ("lcm", "gcd")


def make_record(number: int, num_tasks: int = 2, **changes) -> Record:
    share = (number % 101) / 100
    outcomes = tuple(
        Outcome(name, "arithmetic", 2.0, 1.0 + share + index, 0.0, 0.5, 100)
        for index, name in enumerate(f"{t}{i}" for i in range(num_tasks) for t in TASKS)
    )
    record = Record(
        world="w",
        source="population",
        abilities=("a", "b"),
        weights_K=(share, 1 - share),
        budget=1000,
        parameters=10,
        seed=number,
        outcomes=outcomes,
        created=f"now {number}",
    )
    return record._replace(**changes)


def make_features(num_abilities: int = 2, seed: int = 0) -> Features:
    K, rng = num_abilities, np.random.default_rng(seed)
    return Features(
        rng.normal(size=len(TASK)).astype(np.float32),
        rng.normal(size=(K, len(ABILITY))).astype(np.float32),
        rng.normal(size=(K, K, len(PAIR))).astype(np.float32),
        rng.uniform(1, 2, K).astype(np.float32),
    )


if __name__ == "__main__":
    path, first, count, num_tasks = sys.argv[1], *map(int, sys.argv[2:])
    numbers = range(first, first + count) if count else itertools.count(first)
    for number in numbers:
        store = open_store(path)
        add_run(store, make_record(number, num_tasks))
        store.close()
        print(number, flush=True)
