"""Interpolated against trained models: ranks, and what choosing by them costs."""

import json

import numpy as np
import pytest
from rich.console import Console

from dcft_jax.meta.__main__ import main
from dcft_jax.meta.agreement import agreement, agreements, show_agreements
from tests.meta.synthetic_cases import make_case

# Two corners, the uniform mixture twice, and two more.
WEIGHTS_NK = np.array(
    [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.3, 0.7], [0.7, 0.3], [0.5, 0.5]]
)
TRAINED_N = np.array([5.0, 4.0, 2.0, 1.0, 3.0, 3.0])  # uniform: 2.5


def pair(mixed_N, **fields):
    """The mixed one has its models in another order, each once."""
    case = make_case(np.random.default_rng(0), num_abilities=2, **fields)
    trained = case._replace(
        weights_NK=WEIGHTS_NK,
        loss_N=TRAINED_N,
        accuracy_N=np.zeros(6),
        seed_N=np.array([0, 0, 0, 0, 0, 1]),
    )
    order = [4, 2, 0, 3, 1]
    mixed = trained._replace(
        weights_NK=WEIGHTS_NK[order],
        loss_N=np.array(mixed_N, float)[order],
        accuracy_N=np.zeros(5),
        seed_N=np.zeros(5, int),
    )
    return trained, mixed


def test_ranks_and_regret_by_hand():
    # Right but for the last two inside, 0.3 and 0.5, which are exchanged.
    found = agreement(*pair([9.0, 8.0, 1.0, 2.0, 3.0]))
    assert found.mixtures == 5
    assert found.rank == pytest.approx(1 - 6 * 2 / (5 * 24))
    assert found.rank_inside == pytest.approx(0.5)
    assert (found.regret, found.uniform, found.corner) == (1.5, 1.5, 0.0)
    spread = np.diff(np.quantile(TRAINED_N, [0.1, 0.9]))[0]
    assert found.relative == pytest.approx(1.5 / spread)
    # Inside the order is right; the corner that misleads is only left out there.
    found = agreement(*pair([9.0, 0.0, 2.0, 1.0, 3.0]))
    assert (found.regret, found.corner) == (3.0, 1.0)
    assert (found.regret_inside, found.rank_inside) == (0.0, pytest.approx(1.0))


def test_a_task_counts_in_the_worlds_where_it_is_new():
    right, wrong = [5.0, 4.0, 2.5, 1.0, 3.0], [1.0, 2.0, 4.0, 5.0, 3.0]
    pairs = [
        pair(right, world="h-v", task="gcd", category="arithmetic"),
        pair(wrong, world="h-v", task="aiw", category="logic"),
        pair(right, world="h-w", task="aiw", category="logic"),
    ]
    own = [case._replace(abilities=("bf", "x")) for case in pair(right, task="bf")]
    trained, mixed = zip(*pairs, own, strict=True)
    found = agreements(trained, mixed[::-1])
    assert found["worlds"].keys() == {"h-v", "h-w"}
    assert found["worlds"]["h-v"]["rank"]["mean"] == pytest.approx(0.0)
    pooled = found["pooled"]
    assert (pooled["tasks"], pooled["cases"], pooled["mixtures"]) == (2, 3, [5, 5])
    assert pooled["rank"]["mean"] == pytest.approx(1 / 3)
    low, high = pooled["rank"]["interval"]
    assert -1.0 <= low < pooled["rank"]["mean"] < high <= 1.0
    assert pooled["difference"]["mean"] == pytest.approx(
        pooled["relative"]["mean"] - pooled["uniform_relative"]["mean"]
    )
    json.dumps(found, allow_nan=False)
    only = agreements(trained, mixed, {"gcd"})
    assert only["pooled"]["rank"]["mean"] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="none is of one world and of the tasks"):
        agreements(trained, mixed, {"chess"})
    console = Console(width=80, record=True)
    console.print(show_agreements(found, "title"))
    (line,) = [x for x in console.export_text().splitlines() if x.startswith("all ")]
    assert "0.33" in line


def test_the_uniform_mixture_must_be_there():
    trained, mixed = pair([9.0, 8.0, 1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="uniform one are needed"):
        agreement(trained, mixed._replace(weights_NK=mixed.weights_NK[:, ::-1] * 0.8))


def test_the_command_reads_the_experience_in_the_package(capsys):
    main(["interpolate", "--json", "--tasks", "emerging"])
    found = json.loads(capsys.readouterr().out)["specialists"]
    assert found["pooled"]["tasks"] == 8 and len(found["worlds"]) == 9
    assert 0 < found["pooled"]["rank_inside"]["mean"] < found["pooled"]["rank"]["mean"]
    with pytest.raises(SystemExit, match=r"none\.sqlite"):
        main(["interpolate", "--store", "none.sqlite"])
