import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dcft_jax.reporting import (
    History,
    build_summary,
    load_history,
    summary_table,
    write_summary,
)
from dcft_jax.reporting.summary import summary_rows, with_error

CONTRACT = {
    "abilities", "weights_path", "tokens", "wall_s", "resolver",
    "resolver_action_rate", "seed", "num_steps", "num_parameters", "config_hash",
    "versions", "rule", "eval_s", "generate_s", "extra_s", "extra_tokens",
}  # fmt: skip
PER_ABILITY = {
    "test_loss_before", "test_loss_after", "test_loss_stderr_before",
    "test_loss_stderr_after", "exact_match_before", "exact_match_after",
    "exact_match_stderr_before", "exact_match_stderr_after", "majority_baseline",
    "test_examples", "scored_examples", "mix_val_loss_after", "generalisation_gap",
    "best_step", "accuracy_before", "accuracy_after", "accuracy_stderr_before",
    "accuracy_stderr_after", "num_generated_before", "num_generated_after",
}  # fmt: skip


def history_of(columns: dict[str, list[float]], steps: list[int]) -> History:
    return History(
        workdir=Path("run"),
        abilities=("a", "[b]"),
        config={
            "run": {"seed": 3, "num_steps": 4},
            "mixture": {"rule": "static"},
            "conflict": {"resolver": "mean"},
        },
        summary=None,
        step_T=np.array(steps),
        columns={key: np.array(column_T) for key, column_T in columns.items()},
    )


def summarise(history: History) -> dict:
    return build_summary(
        history,
        majority_baseline={"a": 0.5},
        test_examples={"a": 10, "[b]": 10},
        scored_examples={"a": 8, "[b]": 0},
        num_parameters=9,
        config_hash="abc",
        versions={"jax": "0"},
    )


NAN = float("nan")
HISTORY = history_of(
    {
        "test/loss/a": [2.0, NAN, 1.0],
        "test/loss_stderr/a": [0.2, NAN, 0.1],
        "test/exact_match/a": [0.25, NAN, 0.75],
        "mix_val/loss/a": [1.9, 1.3, 0.8],
        "mix_val/best_step/a": [0, 2, 4],
        "run/eval_s": [1.5, 0.25, 0.25],
        "run/generate_s": [NAN, 0.125, 0.25],
        "run/extra_s": [0.5, 0.0, 0.25],
        "run/extra_tokens": [30.0, 30.0, 30.0],
        "mixture/weight/a": [0.5, 0.5, 0.8],
        "mixture/weight/[b]": [0.5, 0.5, 0.2],
        "conflict/acted": [NAN, 1.0, 0.0],
        "train/tokens": [NAN, 100.0, 200.0],
        "wall_s": [1.0, 2.0, 3.5],
    },
    [0, 2, 4],
)


def test_the_summary_holds_what_was_measured():
    summary = summarise(HISTORY)
    assert set(summary) == CONTRACT
    assert all(set(record) == PER_ABILITY for record in summary["abilities"].values())
    record = summary["abilities"]["a"]
    assert (record["test_loss_before"], record["test_loss_after"]) == (2.0, 1.0)
    assert record["exact_match_after"] == 0.75
    assert record["exact_match_stderr_after"] is None
    assert summary["abilities"]["[b]"]["test_loss_before"] is None
    assert summary["weights_path"] == [[0, [0.5, 0.5]], [4, [0.8, 0.2]]]
    assert summary["tokens"] == 200 and summary["wall_s"] == 3.5
    assert summary["resolver_action_rate"] == 0.5
    assert (summary["resolver"], summary["seed"]) == ("mean", 3)
    # The test loss minus that on the rows that moved the mixture.
    assert record["generalisation_gap"] == pytest.approx(0.2)
    assert record["best_step"] == 4 and summary["rule"] == "static"
    assert (summary["eval_s"], summary["extra_s"]) == (2.0, 0.75)
    assert summary["generate_s"] == 0.375
    assert summary["extra_tokens"] == 90
    assert summary["abilities"]["[b]"]["generalisation_gap"] is None


def test_a_run_that_measured_nothing_has_a_summary():
    summary = summarise(history_of({}, []))
    assert summary["weights_path"] == [] and summary["resolver_action_rate"] is None
    assert summary["tokens"] == 0
    summary_table(summary)


def test_the_file_is_strict_json(tmp_path: Path):
    path = tmp_path / "summary.json"
    write_summary(path, {"a": [NAN, 1.5], "b": {"c": float("inf")}})
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content == {"a": [None, 1.5], "b": {"c": None}}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_the_table_shows_before_and_after(run_dir: Path):
    out = io.StringIO()
    summary = load_history(run_dir).summary
    assert summary is not None
    Console(file=out, width=80).print(summary_table(summary))
    (math,) = [line for line in out.getvalue().splitlines() if "math" in line]
    assert "4.0 -> 46.0±3.1" in math and " 6.0 " in math
    assert "exact match %" in out.getvalue()
    assert "2.901 -> 1.147±0.070" in math
    out = io.StringIO()
    Console(file=out, width=160).print(summary_table(summarise(HISTORY)))
    assert "[b]" in out.getvalue()  # no markup


def test_generated_replies_have_a_column_where_there_are_any():
    columns = dict(HISTORY.columns) | {
        "test/accuracy/a": np.array([NAN, NAN, 0.5]),
        "test/accuracy_stderr/a": np.array([NAN, NAN, 0.025]),
        "test/num_generated/a": np.array([NAN, NAN, 400.0]),
    }
    summary = summarise(dataclasses.replace(HISTORY, columns=columns))
    assert summary["abilities"]["a"]["num_generated_after"] == 400
    out = io.StringIO()
    Console(file=out, width=80).print(summary_table(summary))
    lines = out.getvalue().splitlines()
    assert "generated %" in out.getvalue() and max(map(len, lines)) <= 80
    (row,) = [line for line in lines if line.strip().startswith("a ")]
    assert " 50.0±2.5 " in row  # no arrow: it was not measured before
    header, rows = summary_rows(summary)
    assert rows[0][header.index("generated after")] == "50.0 ± 2.5 %"
    header, _ = summary_rows(summarise(HISTORY))
    assert not any("generated" in name for name in header)


def test_cells_tell_unit_and_error():
    assert with_error(1.23456, 0.0123, "") == "1.235 ± 0.012"
    assert with_error(0.5, 0.015, "%") == "50.0 ± 1.5 %"
    assert with_error(0.25, None, "%") == "25.0 %"
    assert with_error(None, None, "%") == "-"
