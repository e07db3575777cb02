"""The rival that dynamic mixtures are up against: the best of many static ones."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from experiments.tables import Row, score

BEST = "best_of_grid"


def simplex_grid(num_abilities: int, parts: int) -> list[tuple[float, ...]]:
    """All mixtures whose weights are positive multiples of `1 / parts`.

    There are `(parts - 1) choose (num_abilities - 1)`: 10 for six parts and three or
    four abilities.
    """
    grid = []
    for cuts in combinations(range(1, parts), num_abilities - 1):
        edges = (0, *cuts, parts)
        grid.append(tuple(np.diff(edges).tolist()))
    return [tuple(count / parts for count in counts) for counts in grid]


def best_of_grid(
    rows: Sequence[Row], members: Mapping[str, Sequence[str]], grid: Sequence[str]
) -> list[Row]:
    """The rows of the grid's best mixture, as a method of its own.

    Chosen for each setting and seed by the mean mix-val loss at the end; the test
    split is not looked at. What all the other runs of the grid cost is charged to it.

    Args:
      members: setting -> the abilities whose loss counts.
      grid: names of the methods that make up the grid; those without a run (yet) are
        left out.
    """
    best = []
    for setting, abilities in members.items():
        losses = {
            method: score(rows, setting, method, "mix_val_loss", abilities, np.mean)
            for method in grid
        }
        for seed in sorted({seed for found in losses.values() for seed in found}):
            found = {m: by[seed] for m, by in losses.items() if seed in by}
            winner = min(found, key=found.__getitem__)
            best += _charged(rows, setting, seed, winner, found)
    return best


def _charged(
    rows: Sequence[Row], setting: str, seed: int, winner: str, tried: Mapping
) -> list[Row]:
    ours = [row for row in rows if (row.setting, row.seed) == (setting, seed)]
    # By config: a mixture with two names is one run. All rows of a run cost the same.
    runs = {row.config_hash: row for row in ours if row.method in tried}
    chosen = [row for row in ours if row.method == winner]
    runs.pop(chosen[0].config_hash)
    tokens = sum(row.tokens + row.extra_tokens for row in runs.values())
    seconds = sum(row.seconds + row.extra_seconds for row in runs.values())
    return [
        row._replace(
            method=BEST,
            extra_tokens=row.extra_tokens + tokens,
            extra_seconds=row.extra_seconds + seconds,
        )
        for row in chosen
    ]
