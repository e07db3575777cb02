import math

import numpy as np
import pytest

from experiments.static_grid import BEST, best_of_grid, simplex_grid
from experiments.tables import Row, paired, score


def make_rows(method: str, seed: int, mix_val: list[float], test: list[float], **cost):
    fields = dict(tokens=100, seconds=10.0, extra_tokens=0, extra_seconds=0.0)
    fields |= dict(config_hash=f"{method}{seed}") | cost
    return [
        Row("s", method, seed, f"ability{k}", metric, value, None, **fields)
        for metric, values in (("mix_val_loss", mix_val), ("test_loss", test))
        for k, value in enumerate(values)
    ]


@pytest.mark.parametrize(("num_abilities", "parts"), [(2, 5), (3, 6), (4, 6), (6, 6)])
def test_simplex_grid(num_abilities: int, parts: int):
    grid_NK = np.array(simplex_grid(num_abilities, parts))
    assert len(grid_NK) == math.comb(parts - 1, num_abilities - 1)
    assert len({tuple(row) for row in grid_NK}) == len(grid_NK)
    np.testing.assert_allclose(grid_NK.sum(axis=1), 1.0)
    assert grid_NK.min() >= 1 / parts - 1e-12
    assert grid_NK.max() <= 1 - (num_abilities - 1) / parts + 1e-12


def test_best_is_chosen_on_mix_val_for_each_seed():
    rows = [
        # In seed 0, b is best on mix-val and worst on test.
        *make_rows("a", 0, [2.0, 2.0], [0.5, 0.5]),
        *make_rows("b", 0, [1.0, 2.0], [9.0, 9.0], extra_tokens=7),
        *make_rows("c", 0, [0.0, 9.0], [0.1, 0.1], seconds=30.0),
        *make_rows("a", 1, [1.0, 1.0], [3.0, 4.0]),
        *make_rows("b", 1, [2.0, 2.0], [1.0, 1.0]),
        *make_rows("elsewhere", 0, [0.0, 0.0], [0.0, 0.0]),
    ]
    best = best_of_grid(rows, {"s": ["ability0", "ability1"]}, ["a", "b", "c"])
    assert {row.method for row in best} == {BEST}
    found = score(best, "s", BEST, "test_loss", ["ability0", "ability1"], np.mean)
    assert found == {0: 9.0, 1: 3.5}
    costs = {row.seed: (row.extra_tokens, row.extra_seconds) for row in best}
    assert costs == {0: (7 + 100 + 100, 10.0 + 30.0), 1: (100, 10.0)}
    assert {row.tokens for row in best} == {100}


def test_only_the_abilities_that_count_choose():
    rows = [
        *make_rows("a", 0, [1.0, 9.0], [1.0, 1.0]),
        *make_rows("b", 0, [2.0, 0.0], [2.0, 2.0]),
    ]
    best = best_of_grid(rows, {"s": ["ability0"]}, ["a", "b"])
    assert {row.value for row in best if row.metric == "test_loss"} == {1.0}


def test_a_run_with_two_names_is_charged_once():
    rows = [
        *make_rows("a", 0, [1.0], [1.0]),
        *make_rows("b", 0, [2.0], [2.0]),
        *make_rows("also_b", 0, [2.0], [2.0], config_hash="b0"),
    ]
    best = best_of_grid(rows, {"s": ["ability0"]}, ["a", "b", "also_b"])
    assert {row.extra_tokens for row in best} == {100}


def test_scores_need_all_abilities_and_pairs_both_runs():
    rows = [
        *make_rows("a", 0, [1.0, 3.0], [1.0, 5.0]),
        *make_rows("a", 1, [1.0], [1.0]),
        *make_rows("a", 2, [1.0, 3.0], [2.0, 4.0]),
        *make_rows("b", 2, [1.0, 3.0], [7.0, 8.0]),
    ]
    both = ["ability0", "ability1"]
    mean = score(rows, "s", "a", "test_loss", both, np.mean)
    assert mean == {0: 3.0, 2: 3.0}
    worst = score(rows, "s", "b", "test_loss", both, max)
    assert paired(mean, worst) == ([3.0], [8.0])
