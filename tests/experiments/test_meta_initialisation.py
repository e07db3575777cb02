"""The grid of runs, what the report says about known numbers, and a smoke run."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from dcft_jax.config import to_plain
from dcft_jax.evaluation import emerging
from dcft_jax.meta import EXPERIENCE, SHIPPED, load, merge, open_store
from dcft_jax.meta.baselines import METHODS
from dcft_jax.meta.collect import world_name
from dcft_jax.meta.regret import solve
from dcft_jax.meta.until_uniform import share_until
from dcft_jax.meta.worlds import Settings
from experiments import meta_initialisation
from experiments.meta_choices import choose
from experiments.meta_data import (
    MEAN,
    TRIED,
    TRIED_MIXTURES,
    choices_path,
    mean_weights,
    mixtures_to_try,
    world_of,
)
from experiments.meta_measure import ACCURACY, LOSS, TRUSTED
from experiments.meta_report import (
    check_bases,
    curve,
    difference,
    figure,
    helped,
    report,
    tokens_until_baseline,
    values_of,
    with_oracle,
)
from experiments.meta_runs import ARMS, CHOOSERS, run_config
from experiments.tables import Row, read_csv
from tests.meta.synthetic_cases import make_cases


def test_worlds_are_new_and_in_the_domain_of_the_network():
    settings, domain = Settings(), load(SHIPPED).domain
    store = open_store(":memory:")
    merge(store, [EXPERIENCE])
    known = {world for (world,) in store.execute("SELECT world FROM models")}
    store.close()
    worlds = [world_of(settings, seed) for seed in range(8)]
    assert len({world.number for world in worlds}) == 8
    low, high = domain.num_abilities
    for world in worlds:
        assert low <= len(world.names) <= high
        last = world_name(settings, world.number, settings.training.steps)
        assert last not in known
        assert not set(itertools.chain(*world.abilities)) & set(emerging.FAMILIES)


def plain_of(arm: str, folder: Path) -> dict:
    return to_plain(run_config(Settings(), 1, "aiw", arm, folder))


def test_arms_differ_in_the_mixture_only(tmp_path: Path):
    names = world_of(Settings(), 1).names
    given = np.arange(1.0, len(names) + 1)
    (tmp_path / "seed-1").mkdir()
    (tmp_path / "seed-1" / MEAN).write_text(json.dumps(given.tolist()))
    tried_NK = mixtures_to_try(Settings(), world_of(Settings(), 1), given)
    assert len(tried_NK) == TRIED_MIXTURES > len(names) + 1
    assert np.ptp(tried_NK, axis=1).min() > 0.01, "uniform is an arm of its own"
    (tmp_path / "seed-1" / TRIED).write_text(json.dumps(tried_NK.tolist()))
    path = choices_path(tmp_path, 1, "aiw")
    path.parent.mkdir(parents=True)
    chosen = {name: np.roll(given, i).tolist() for i, name in enumerate(CHOOSERS)}
    path.write_text(json.dumps(chosen))
    plain = {arm: plain_of(arm, tmp_path) for arm in ARMS}
    for name in CHOOSERS:
        weights = [a["weight"] for a in plain[name]["abilities"].values()]
        np.testing.assert_array_equal(weights, chosen[name])
    weights = [a["weight"] for a in plain["mean"]["abilities"].values()]
    np.testing.assert_array_equal(weights, given)
    weights = [a["weight"] for a in plain["tried_0"]["abilities"].values()]
    np.testing.assert_allclose(weights, np.eye(len(names))[0], atol=1e-3)
    assert min(weights) > 0 and sum(weights) == pytest.approx(1.0, abs=1e-9)
    mixtures = {}
    for arm, config in plain.items():
        mixtures[arm] = config.pop("mixture")
        for one in config["abilities"].values():
            one.pop("weight")
        assert config == plain["meta"]
        assert (mixtures[arm]["rule"], mixtures[arm]["prior"]) == ARMS[arm]
    assert mixtures["meta"]["meta"]["support"] == str(tmp_path / "support/aiw.jsonl")
    # What does not look at the task is one run for all tasks.
    for arm in ("uniform", "proportional", "mean", "uniform_static", "tried_0"):
        other = to_plain(run_config(Settings(), 1, "bf", arm, tmp_path))
        assert other["mixture"] == mixtures[arm]
    assert plain["meta"]["data"]["seed"] == 1
    tokens = 1
    for value in (plain["meta"]["run"]["num_steps"], Settings().training.rows):
        tokens *= value
    assert tokens * plain["meta"]["data"]["seq_len"] == 245_760


def test_the_mean_is_of_what_the_network_was_fitted_on():
    size_K = np.array([30.0, 10.0])
    unknown = mean_weights(["no", "one"], size_K)
    np.testing.assert_allclose(unknown, [0.75, 0.25])


def test_methods_choose_for_a_task_by_its_embedding():
    train = solve(make_cases(tasks_per_category=2, num_worlds=2), "quadratic")
    case = train[0].case
    abilities, features = case.abilities, case.features
    found = choose(train, case.task, abilities, features)
    assert found.keys() == {*CHOOSERS}
    K = len(abilities)
    share_K = features.size_K / features.size_K.sum()
    for name, weights_K in found.items():
        assert weights_K.min() > 0 and weights_K.sum() == pytest.approx(1.0)
        own_K = METHODS[name](train, case, share_K)
        np.testing.assert_allclose(weights_K, own_K, atol=2e-4 * K)


def rows_of(arm: str, task: str, seed: int, curve_T: list[float], right: float):
    cost = dict(tokens=1000, seconds=1.0, extra_tokens=0, extra_seconds=0.0)
    values = {LOSS: curve_T[-1], ACCURACY: right}
    values |= {f"{LOSS}@{10 * (t + 1)}": loss for t, loss in enumerate(curve_T)}
    if arm == "meta":
        values[TRUSTED] = float(seed == 0)
    return [
        Row(task, arm, seed, task, metric, value, None, config_hash="", **cost)
        for metric, value in values.items()
    ]


ROWS = [
    *rows_of("uniform", "aiw", 0, [4.0, 3.0, 2.0, 2.0], 0.1),
    *rows_of("uniform", "bf", 0, [4.0, 3.0, 2.0, 3.0], 0.0),
    *rows_of("meta", "aiw", 0, [4.0, 1.0, 1.0, 1.0], 0.2),
    *rows_of("meta", "bf", 0, [4.0, 3.5, 2.5, 2.0], 0.1),
    *rows_of("uniform", "aiw", 1, [4.0, 3.0, 2.0, 2.0], 0.1),
    *rows_of("uniform", "bf", 1, [4.0, 3.0, 2.0, 1.0], 0.1),
    *rows_of("meta", "aiw", 1, [4.0, 3.0, 2.5, 2.5], 0.1),
    *rows_of("meta", "bf", 1, [0.5, 0.7, 0.7, 0.7], 0.1),
    # The other task of this seed is not there yet.
    *rows_of("uniform", "aiw", 2, [4.0, 3.0, 2.0, 2.0], 0.1),
    *rows_of("meta", "aiw", 2, [9.0, 9.0, 9.0, 9.0], 0.1),
]
BEFORE = [(ROWS[0], 5.0), (ROWS[-1], 6.0)]


def test_a_seed_is_a_pair_and_the_mean_over_its_tasks():
    losses = [values_of(ROWS, arm, LOSS) for arm in ("meta", "uniform")]
    keys = [*itertools.product(("aiw", "bf"), range(3))]
    found = difference(*losses, keys)
    assert found.values == pytest.approx((-1.0, 0.1))
    assert found.mean == pytest.approx(-0.45)
    low, high = found.interval
    assert low < -1.0 and high > 0.1  # of two pairs
    assert difference(*losses, keys[:3]).values == pytest.approx((-1.0, 0.5, 7.0))
    nothing = difference(*losses, [("chess", 0)])
    assert nothing.values == () and np.isnan(nothing.mean)


def test_tokens_until_the_loss_of_the_uniform_start():
    points_T2 = curve(ROWS, "meta", "aiw", 0)
    np.testing.assert_allclose(points_T2[:, 0], [0.25, 0.5, 0.75, 1.0])
    assert share_until(points_T2, 4.0) == 0.25
    assert share_until(points_T2, 2.0) == pytest.approx(0.25 + 0.25 * 2 / 3)
    assert np.isnan(share_until(points_T2, 0.9))
    until = tokens_until_baseline(ROWS, "meta")
    assert until["aiw", 0] == pytest.approx(1000 * (0.25 + 0.25 * 2 / 3))
    assert until["bf", 0] == pytest.approx(1000 * 0.625)
    assert until["bf", 1] == 250.0
    assert np.isnan(until["aiw", 1])


def test_the_report_says_what_the_numbers_say():
    rows = [row for row in ROWS if row.seed < 2]
    text = report(rows, ["aiw / mean / seed 1: failed"])
    assert "trusted its prediction in 2 of 4 runs" in text
    (line,) = [x for x in text.splitlines() if x.startswith("| meta | ")]
    assert line.startswith("| meta | 1.550 | 12.50 | -0.450 [")
    assert "| 3 of 4 |" in line
    assert "| uniform | 2.000 | 7.50 |  |  | 4 of 4 |" in text
    assert "| meta - uniform | bf | -0.650 [" in text
    assert "- aiw / mean / seed 1: failed" in text
    assert "Before training" not in text
    start = [row._replace(metric=f"{LOSS}@0", value=value) for row, value in BEFORE]
    assert "Before training the target loss is 5.500." in report(rows + start, [])
    left, right = figure(rows).axes
    assert {line.get_label() for line in left.lines} == {"uniform", "meta"}
    (dot,) = [line for line in right.lines if line.get_marker() == "o"]
    assert dot.get_xdata()[0] == pytest.approx(-0.45)


def test_the_oracle_is_the_best_fixed_mixture_of_each_task_and_seed():
    fixed = [
        *rows_of("tried_0", "aiw", 0, [4.0, 1.5], 0.3),
        *rows_of("tried_1", "aiw", 0, [4.0, 1.8], 0.4),
        *rows_of("uniform_static", "aiw", 0, [4.0, 1.7], 0.5),
        *rows_of("tried_0", "bf", 0, [4.0, 2.4], 0.1),
        *rows_of("uniform_static", "bf", 0, [4.0, 2.2], 0.2),
    ]
    before = [
        row._replace(metric=f"{LOSS}@0", value=2.0)
        for row in ROWS
        if (row.method, row.seed, row.metric) == ("uniform", 0, LOSS)
    ]
    rows = with_oracle([*(row for row in ROWS if row.seed == 0), *fixed, *before])
    assert {row.method for row in rows} == {
        *("meta", "uniform", "uniform_static", "oracle")
    }
    assert values_of(rows, "oracle", LOSS) == {("aiw", 0): 1.5, ("bf", 0): 2.2}
    assert values_of(rows, "oracle", ACCURACY) == {("aiw", 0): 0.3, ("bf", 0): 0.2}
    assert curve(rows, "oracle", "aiw", 0)[:, 1].tolist() == [4.0, 1.5]
    assert helped(rows) == [("aiw", 0)]
    text = report(rows, [])
    assert "In 1 of 2 pairs of task and seed the best fixed mixture ends below" in text
    assert "| meta - oracle | all | -0.350 [-, -] |" in text
    assert "| meta - oracle | where a mixture helps | -0.500 [-, -] |" in text
    # Without a sweep there is none.
    assert with_oracle(ROWS) == ROWS and not helped(ROWS)


def test_pairs_start_from_one_base():
    start = [row._replace(metric=f"{LOSS}@0", value=5.0) for row in ROWS]
    check_bases(ROWS + start)
    for arm in ("meta", "uniform"):
        other = [
            row._replace(value=5.1) if (row.method, row.seed) == (arm, 1) else row
            for row in start
        ]
        with pytest.raises(ValueError, match=r"aiw, seed 1, meta starts from a base"):
            check_bases(other)


@pytest.mark.parametrize("name", ["", "_eight", "_methods"])
def test_the_committed_pairs_start_from_one_base(name):
    check_bases(
        read_csv(meta_initialisation.RESULTS / f"meta_initialisation{name}.csv")
    )


def test_known_rows_of_some_seeds_are_reported_without_a_run(tmp_path: Path):
    table = meta_initialisation.RESULTS / "meta_initialisation_eight.csv"
    command = ["--rows", str(table), "--out", str(tmp_path), "--arms", "uniform"]
    command += ["meta", "--seeds", "5", "6", "7", "8", "9", "--tasks", "aiw", "bf"]
    with pytest.raises(SystemExit) as ended:
        meta_initialisation.main(command)
    assert ended.value.code == 0 and not (tmp_path / "data").exists()
    rows = read_csv(tmp_path / "meta_initialisation.csv")
    assert {row.seed for row in rows} == {5, 6, 7, 8, 9}
    assert {row.setting for row in rows} == {"aiw", "bf"}


def test_an_ability_is_no_new_task(tmp_path: Path):
    (first, *_), *_ = world_of(Settings(), 0).abilities
    with pytest.raises(ValueError, match=rf"--tasks {first}: abilities of the world"):
        meta_initialisation.prepare(Settings(), [0], [first], tmp_path)


@pytest.mark.slow
def test_the_smoke_run_ends_in_a_table_and_is_not_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("reasoning_gym")
    command = ["--smoke", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        meta_initialisation.main(command)
    assert ended.value.code == 0
    rows = read_csv(tmp_path / "meta_initialisation.csv")
    assert {row.method for row in rows} == {"meta", "uniform"}
    for arm in ("meta", "uniform"):
        (last,) = values_of(rows, arm, LOSS).values()
        points_T2 = curve(rows, arm, meta_initialisation.SMOKE_TASK, 0)
        assert len(points_T2) >= 6 and points_T2[-1, 1] == last
        assert 0 < last < points_T2[0, 1]
    assert [row.value for row in rows if row.metric == TRUSTED] == [0.0]
    assert (tmp_path / "meta_initialisation.png").read_bytes().startswith(b"\x89PNG")

    def never(*_):
        raise AssertionError("what is there is not made again")

    monkeypatch.setattr("experiments.meta_data.make_lab", never)
    monkeypatch.setattr("experiments.meta_measure.load_trained", never)
    with pytest.raises(SystemExit):
        meta_initialisation.main(command)
    assert read_csv(tmp_path / "meta_initialisation.csv") == rows
