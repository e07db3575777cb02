"""The grid of jobs, what the report says about known numbers, and two real runs."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax.mixture import RULES
from experiments import mixture_methods
from experiments.figures import difference_figure, save
from experiments.harness import COMPILED, run_jobs
from experiments.jobs import make_job
from experiments.mixture_ablation import not_given, write_results
from experiments.mixture_methods import GRID_PARTS, is_static, setting_jobs
from experiments.mixture_report import BASELINE, MARGIN, compare_all, report
from experiments.mixture_settings import NOISE, SETTINGS, learnable
from experiments.noise_source import DIGITS, write_noise
from experiments.tables import Row, read_csv, tidy_rows, write_csv


def jobs_of(setting: str, seed: int = 0):
    return setting_jobs(setting, SETTINGS[setting](), seed, Path("runs"))


def without_mixture(job):
    config = json.loads(json.dumps(job.config))
    config.pop("mixture")
    for ability in config["abilities"].values():
        # All of an ability that a rule looks at; the rows are made of the rest.
        for field in ("weight", "reference_loss", "max_epochs"):
            ability.pop(field)
    return config


@pytest.mark.parametrize("setting", SETTINGS)
def test_all_jobs_of_a_setting_differ_in_the_mixture_only(setting: str):
    jobs, _ = jobs_of(setting)
    assert len({job.workdir(Path()) for job in jobs}) == len(jobs)
    first = without_mixture(jobs[0])
    for job in jobs:
        assert without_mixture(job) == first
        assert list(job.config["abilities"]) == list(first["abilities"])


@pytest.mark.parametrize("setting", SETTINGS)
def test_methods(setting: str):
    jobs, refused = jobs_of(setting)
    methods = [job.method for job in jobs]
    assert len(methods) == len(set(methods))
    assert sum(map(is_static, methods)) >= 10
    tried = {*methods, *(line.split(": ")[0].split(" / ")[1] for line in refused)}
    assert tried >= RULES.keys() - {"static", "replay"} | {BASELINE, "proportional"}
    # Where the prior is uniform, staying there has a name already.
    assert ("static" in methods) == (setting == "bad_prior")


def test_grid_weights_are_what_their_names_say():
    for job in jobs_of("bad_prior")[0]:
        if job.method.startswith("grid_"):
            parts = [int(part) for part in job.method[len("grid_") :].split("-")]
            given = [a["weight"] for a in job.config["abilities"].values()]
            np.testing.assert_allclose(given, np.array(parts) / GRID_PARTS)
            mixture = job.config["mixture"]
            assert (mixture["rule"], mixture["prior"]) == ("static", "given")


def test_seeds_are_paired():
    zero, one = jobs_of("unequal", 0)[0], jobs_of("unequal", 1)[0]
    for a, b in zip(zero, one, strict=True):
        assert a.method == b.method
        assert a.config["run"] | {"seed": 1} == b.config["run"]
        if not a.after:  # else the config names a run of its seed
            assert {**a.config, "run": None} == {**b.config, "run": None}


def test_the_bad_prior_is_that_of_the_rules_only():
    for job in jobs_of("bad_prior")[0]:
        given = [a["weight"] for a in job.config["abilities"].values()]
        if not job.method.startswith("grid_"):
            assert given == [0.8, 0.1, 0.1]
            own = job.method in ("uniform", "proportional")
            assert job.config["mixture"]["prior"] == (job.method if own else "given")


def test_what_the_trainer_refuses_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(mixture_methods.RULES, "imaginary", RULES["static"])
    config = SETTINGS["balanced"]()
    config.mixture.tiers.rule = "imaginary_tiers"
    jobs, refused = setting_jobs("balanced", config, 0, Path("runs"))
    assert jobs == []
    assert any("balanced / imaginary: " in line for line in refused)
    assert all("imaginary_tiers" in line for line in refused)


def test_noise_cannot_be_learnt(tmp_path: Path):
    path = write_noise(tmp_path, examples=2000)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["prompt"] for row in rows}) == 2000
    digits_ND = np.array([[int(c) for c in row["response"]] for row in rows])
    assert digits_ND.shape == (2000, DIGITS)
    # Every digit at every place equally often, and none tells the next one.
    expected = len(rows) / 10
    for place_N in digits_ND.T:
        counts = np.bincount(place_N, minlength=10)
        assert np.sum((counts - expected) ** 2 / expected) < 40  # chi2(9): 1e-5
    pairs = np.corrcoef(digits_ND.T)[np.triu_indices(DIGITS, 1)]
    assert np.abs(pairs).max() < 5 / np.sqrt(len(rows))
    assert write_noise(tmp_path, examples=2000) == path
    assert write_noise(tmp_path, examples=1999) != path
    assert learnable(["a", NOISE, "b"]) == ["a", "b"]


def rows_with(method: str, setting: str, losses: list[float], **fields) -> list[Row]:
    cost = dict(tokens=50, seconds=1.0, extra_tokens=0, extra_seconds=0.0)
    return [
        Row(
            *(setting, method, seed, ability, metric, value, None),
            **(cost | fields | {"config_hash": f"{setting}{method}{seed}"}),
        )
        for seed, loss in enumerate(losses)
        for metric, value in (("test_loss", loss), ("exact_match", 0.5))
        for ability, value in (("a", value), (NOISE, 10.0))
    ]


def report_of_known_numbers():
    rows = [
        *rows_with("uniform", "one", [1.0, 1.1, 1.2]),
        *rows_with("ours", "one", [0.50, 0.61, 0.69]),
        *rows_with("best_of_grid", "one", [0.80, 0.89, 1.01], extra_tokens=450),
        *rows_with("uniform", "two", [1.0, 1.0, 1.0]),
        *rows_with("ours", "two", [1.2, 0.9, 1.8]),
        *rows_with("best_of_grid", "two", [1.0, 1.0, 0.99], extra_tokens=450),
        *rows_with("grid_1-5", "two", [0.0, 0.0, 0.0]),
    ]
    members = {"one": ["a"], "two": ["a"]}
    comparisons = compare_all(rows, members)
    refused = ["two / imaginary: no"]
    return comparisons, report(rows, members, comparisons, "ours", refused)


def test_the_report_says_what_the_numbers_say():
    comparisons, text = report_of_known_numbers()
    assert comparisons["one"]["ours"].mean == pytest.approx(-0.5)
    assert comparisons["two"]["ours"].mean == pytest.approx(0.3)
    assert "uniform" not in comparisons["one"]
    assert "ours ends with a lower mean test loss in 1 of 2 settings" in text
    assert "clearly so in 1 (95 % t interval below 0)" in text
    assert f"not worse by {MARGIN} nats or more in 1 (" in text
    assert "takes 10 times the tokens to find, it is lower in 1 of 2 settings" in text
    assert "settings, clearly so in 1. This is" in text
    assert "3 seeds" in text and "4 comparisons" in text
    assert "| ours | 2 | 1 | 1 | 0 | 1 | 0 |" in text
    assert "- two / imaginary: no" in text
    assert "grid_1-5" not in text
    line = next(x for x in text.splitlines() if x.startswith("| ours | 0.600 |"))
    assert "-0.500 [" in line and "| 5.300 |" in line  # the mean with the noise


def test_nothing_is_claimed_where_nothing_ran():
    text = report([], {"one": ["a"]}, compare_all([], {"one": ["a"]}), "ours", ["x"])
    assert "0 of 0 settings" in text and "grid" not in text
    assert "- x" in text


def test_the_figure_shows_every_comparison(tmp_path: Path):
    comparisons, _ = report_of_known_numbers()
    methods = ["ours", "best_of_grid"]
    figure = difference_figure(comparisons, methods, "difference", MARGIN)
    for axes, found in zip(figure.axes, comparisons.values(), strict=True):
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        assert [line.get_xdata()[0] for line in dots] == [
            found[method].mean for method in methods
        ]
        low, high = axes.get_xlim()
        assert all(low < found[method].mean < high for method in methods)
    save(figure, tmp_path / "new" / "figure.png")
    assert (tmp_path / "new" / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_what_other_tables_hold_is_not_run_again(
    tiny_config: ConfigDict, tmp_path: Path
):
    jobs, _ = setting_jobs("tiny", tiny_config, 1, tmp_path)
    write_csv(tmp_path / "rows.csv", rows_with("uniform", "tiny", [1.0, 1.1]))
    left = not_given(jobs, [tmp_path / "rows.csv"])
    assert len(left) == len(jobs) - 1
    assert "uniform" not in {job.method for job in left}
    assert not_given(jobs, []) == jobs


@pytest.mark.slow
def test_real_runs_end_in_one_table(tiny_config: ConfigDict, tmp_path: Path):
    runs, console = tmp_path / "runs", Console(quiet=True)
    jobs, _ = setting_jobs("tiny", tiny_config, 3, runs)
    uniform = next(job for job in jobs if job.method == "uniform")
    tiny_config.mixture.rule = "mirror_descent"
    ours = make_job("tiny", "mirror_descent", 3, tiny_config, (uniform,))
    assert run_jobs([ours], runs, 1, console) == []
    assert any((runs / COMPILED).iterdir())
    summaries = {
        job.method: json.loads((job.workdir(runs) / "summary.json").read_text())
        for job in (uniform, ours)
    }
    rows = {
        (row.method, row.ability, row.metric): row
        for row in tidy_rows([uniform, ours], runs)
    }
    for method, summary in summaries.items():
        assert summary["seed"] == 3
        for ability, record in summary["abilities"].items():
            row = rows[method, ability, "test_loss"]
            assert row.value == record["test_loss_after"]
            assert row.stderr == record["test_loss_stderr_after"]
            assert row.tokens == summary["tokens"] > 0
            assert 0 < row.seconds < 600
            assert row.config_hash == summary["config_hash"]
            assert rows[method, ability, "mix_val_loss"].value > 0
    paid = rows["mirror_descent", "maths", "test_loss"]
    assert paid.extra_tokens == summaries["uniform"]["tokens"]  # it came after that
    assert rows["uniform", "maths", "test_loss"].extra_tokens == 0
    write_results([uniform, ours], [], runs, [], tmp_path / "out")
    with (tmp_path / "out" / "mixture_ablation.csv").open() as file:
        table = list(csv.DictReader(file))
    assert {row["method"] for row in table} == {
        *("uniform", "mirror_descent", "best_of_grid")
    }
    text = (tmp_path / "out" / "mixture_ablation.md").read_text()
    assert "| mirror_descent | 1 |" in text
    # The table of another machine, which had the same run and one of another seed.
    elsewhere = [row._replace(seed=seed) for row in rows.values() for seed in (3, 4)]
    write_csv(tmp_path / "more.csv", elsewhere)
    more = [tmp_path / "more.csv"]
    write_results([uniform, ours], [], runs, more, tmp_path / "both")
    assert "and 1 seed on" in text
    assert "and 2 seeds on" in (tmp_path / "both" / "mixture_ablation.md").read_text()
    again = read_csv(tmp_path / "both" / "mixture_ablation.csv")
    assert {row.seed for row in again} == {3, 4}
    assert len(again) == 2 * len(table)
