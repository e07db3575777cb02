"""Scores between base and specialist."""

import json
import shutil
from pathlib import Path

import pytest

from dcft_jax.report import main
from dcft_jax.reporting.normalised import normalised_rows


def record(metric: str, before: tuple, after: tuple) -> dict:
    return {
        f"{metric}_before": before[0],
        f"{metric}_stderr_before": before[1],
        f"{metric}_after": after[0],
        f"{metric}_stderr_after": after[1],
    }


def summary(**abilities) -> dict:
    return {"abilities": abilities}


def test_half_way_from_base_to_specialist():
    run = summary(maths=record("test_loss", (3.0, 0.1), (2.0, 0.1)), code={})
    specialist = summary(maths=record("test_loss", (3.0, 0.1), (1.0, 0.1)))
    ((name, metric, base, found, best, value),) = normalised_rows(run, [specialist])
    assert (name, metric) == ("maths", "test loss")
    assert (base, found, best) == ("3.000 ± 0.100", "2.000 ± 0.100", "1.000 ± 0.100")
    # Derivatives 1/2, 1/4 and 1/4 of the three, each with an error of 0.1.
    assert value == "0.500 ± 0.061"


def test_a_gain_within_its_error_is_undefined():
    run = summary(maths=record("exact_match", (0.2, 0.1), (0.3, 0.1)))
    specialist = summary(maths=record("exact_match", (0.2, 0.1), (0.4, 0.1)))
    (row,) = normalised_rows(run, [specialist])
    assert row[-1] == "undefined"


def test_random_weights_count_as_no_right_replies():
    run = summary(maths=record("accuracy", (None, None), (0.3, 0.01)))
    specialist = summary(maths=record("accuracy", (None, None), (0.6, 0.01)))
    (row,) = normalised_rows(run, [specialist])
    assert row[1:3] == ["generated", "0.000 ± 0.000"] and row[-1].startswith("0.500")


@pytest.mark.parametrize(
    ("specialists", "message"),
    [
        ([summary(maths={}, code={})], "one ability, this run maths, code"),
        ([summary(poetry={})], "a specialist of poetry, but the run trains maths"),
        ([summary(maths={})] * 2, "two specialists of maths"),
    ],
)
def test_wrong_specialists_are_refused(specialists: list, message: str):
    with pytest.raises(ValueError, match=message):
        normalised_rows(summary(maths={}, code={}), specialists)


def test_the_command_prints_them(
    run_dir: Path, unfinished_dir: Path, tmp_path: Path, capsys
):
    shutil.copytree(run_dir, tmp_path / "maths")
    path = tmp_path / "maths" / "summary.json"
    found = json.loads(path.read_text())
    found["abilities"] = {"math": found["abilities"]["math"]}
    path.write_text(json.dumps(found))
    main([str(run_dir), "--specialists", str(tmp_path / "maths")])
    shown = capsys.readouterr().out
    # It is a specialist of itself.
    assert shown.count("1.000 ±") >= 2 and "exact match" in shown
    with pytest.raises(SystemExit, match="the run has not finished"):
        main([str(run_dir), "--specialists", str(unfinished_dir)])
