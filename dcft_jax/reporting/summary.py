"""What a run came to: before and after per ability, and what it cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from dcft_jax.reporting import jsonl
from dcft_jax.reporting.history import History

_WHEN = ("before", "after")
# key in summary.json -> metric of a test evaluation
_TEST_METRICS = {
    "test_loss": "test/loss",
    "test_loss_stderr": "test/loss_stderr",
    "exact_match": "test/exact_match",
    "exact_match_stderr": "test/exact_match_stderr",
    # Of generated and verified replies.
    "accuracy": "test/accuracy",
    "accuracy_stderr": "test/accuracy_stderr",
    "num_generated": "test/num_generated",
}


def build_summary(
    history: History,
    *,
    majority_baseline: Mapping[str, float],
    test_examples: Mapping[str, int],
    scored_examples: Mapping[str, int],
    num_parameters: int,
    config_hash: str,
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """The content of summary.json, from the whole record of the run.

    Everything measured comes from `history`, so a resumed run reports the same as one
    that never stopped. None: not measured. `majority_baseline` is the exact match of
    always giving the most frequent answer; `scored_examples` of the `test_examples`
    have a single right answer. `resolver_action_rate` is over the logged steps.
    """
    summary = measured(history)
    for ability, record in summary["abilities"].items():
        record["majority_baseline"] = majority_baseline.get(ability)
        record["test_examples"] = test_examples.get(ability)
        record["scored_examples"] = scored_examples.get(ability)
    return summary | {
        "num_parameters": num_parameters,
        "config_hash": config_hash,
        "versions": dict(versions),
    }


def measured(history: History) -> dict[str, Any]:
    """The part of the summary that the record alone gives, also of a run cut short."""
    return {
        "abilities": {a: before_after(history, a) for a in history.abilities},
        "weights_path": weights_path(history),
        "tokens": int(last(history.scalar("train/tokens")) or 0),
        "wall_s": last(history.scalar("wall_s")) or 0.0,
        # Compilation included; extra: what the mixture rule asked for.
        "eval_s": float(np.nansum(history.scalar("run/eval_s"))),
        "generate_s": float(np.nansum(history.scalar("run/generate_s"))),  # part of it
        "extra_s": float(np.nansum(history.scalar("run/extra_s"))),
        "extra_tokens": int(np.nansum(history.scalar("run/extra_tokens"))),
        "rule": history.config["mixture"]["rule"],
        "resolver": history.config["conflict"]["resolver"],
        "resolver_action_rate": _mean(history.scalar("conflict/acted")),
        "seed": history.config["run"]["seed"],
        "num_steps": history.config["run"]["num_steps"],
    }


def before_after(history: History, ability: str) -> dict[str, Any]:
    """Test metrics at step 0 (`_before`) and of the last later test (`_after`).

    `generalisation_gap` is the test loss minus the loss on the mix-val rows, which the
    mixture has seen; `best_step` is where the mix-val loss was lowest.
    """
    result = {}
    for name, metric in _TEST_METRICS.items():
        value_T = history.scalar(f"{metric}/{ability}")
        result[f"{name}_before"] = last(value_T[history.step_T == 0])
        result[f"{name}_after"] = last(value_T[history.step_T > 0])
    mix_val = last(history.scalar(f"mix_val/loss/{ability}"))
    result["mix_val_loss_after"] = mix_val
    result["generalisation_gap"] = _difference(result["test_loss_after"], mix_val)
    best_step = last(history.scalar(f"mix_val/best_step/{ability}"))
    result["best_step"] = None if best_step is None else int(best_step)
    return result


def weights_path(history: History) -> list[list[Any]]:
    """[[step, [weight per ability]], ...]: the first, every change and the last."""
    weight_TK = history.per_ability("mixture/weight")
    known_T = ~np.isnan(weight_TK).any(axis=1)
    path: list[list[Any]] = []
    steps = history.step_T[known_T].tolist()
    for step, weights in zip(steps, weight_TK[known_T].tolist(), strict=True):
        if not path or weights != path[-1][1] or step == steps[-1]:
            path.append([step, weights])
    return path


def write_summary(path: str | Path, summary: Mapping[str, Any]) -> None:
    """Writes strict JSON (NaN and infinity as null), whole or not at all."""
    jsonl.replace_file(Path(path), jsonl.dumps(summary, indent=2) + "\n")


def summary_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the before/after table, one row per ability."""
    abilities = summary["abilities"]
    kinds = test_metrics(summary)
    header = ["ability"]
    header += [f"{label} {when}" for _, label, _ in kinds for when in _WHEN]
    header += ["majority baseline", "test - mix-val loss", "final weight"]
    path = summary["weights_path"]
    weights = path[-1][1] if path else [None] * len(abilities)
    rows = []
    for (ability, record), weight in zip(abilities.items(), weights, strict=True):
        tests = [
            with_error(record[f"{name}_{when}"], record[f"{name}_stderr_{when}"], unit)
            for name, _, unit in kinds
            for when in _WHEN
        ]
        baseline = with_error(record.get("majority_baseline"), None, "%")
        gap = with_error(record.get("generalisation_gap"), None, "")
        rows.append([ability, *tests, baseline, gap, with_error(weight, None, "")])
    return header, rows


def test_metrics(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, label and unit of what was measured on the test split."""
    kinds = [("test_loss", "test loss", ""), ("exact_match", "exact match", "%")]
    abilities = summary["abilities"].values()
    if any(record.get("accuracy_after") is not None for record in abilities):
        kinds.append(("accuracy", "generated", "%"))
    return kinds


def with_error(value: float | None, stderr: float | None, unit: str) -> str:
    """Such as "1.234 ± 0.012" or, for a share shown in "%", "41.2 ± 1.5 %"."""
    if value is None:
        return "-"
    scale, digits = (100, 1) if unit == "%" else (1, 3)
    error = "" if stderr is None else f" ± {stderr * scale:.{digits}f}"
    return f"{value * scale:.{digits}f}{error} {unit}".rstrip()


def summary_table(summary: Mapping[str, Any]) -> Table:
    """The before/after table for a terminal; fits 80 columns."""
    table = Table(
        title="Test split, before -> after training",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    kinds = test_metrics(summary)
    labels = [f"{label} {unit}".rstrip() for _, label, unit in kinds]
    for name in ("ability", *labels, "chance %", "weight"):
        table.add_column(name, justify="left" if name == "ability" else "right")
    path = summary["weights_path"]
    weights = path[-1][1] if path else [None] * len(summary["abilities"])
    for (ability, record), weight in zip(
        summary["abilities"].items(), weights, strict=True
    ):
        changes = [_change(record, name, unit) for name, _, unit in kinds]
        baseline = _number(record.get("majority_baseline"), None, "%")
        cells = [ability, *changes, baseline, with_error(weight, None, "")]
        table.add_row(*(Text(cell) for cell in cells))  # Text: "[x]" is no markup
    return table


def _change(record: Mapping[str, Any], name: str, unit: str) -> str:
    """Before is left out where it was not measured, as replies of random weights."""
    before = record[f"{name}_before"]
    after = _number(record[f"{name}_after"], record[f"{name}_stderr_after"], unit)
    return after if before is None else f"{_number(before, None, unit)} -> {after}"


def _number(value: float | None, stderr: float | None, unit: str) -> str:
    """`with_error` in a narrow column whose head names the unit."""
    return with_error(value, stderr, unit).removesuffix(" %").replace(" ± ", "±")


def last(value_T: np.ndarray) -> float | None:
    """The last value that was measured."""
    known = value_T[~np.isnan(value_T)]
    return float(known[-1]) if known.size else None


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _mean(value_T: np.ndarray) -> float | None:
    known = value_T[~np.isnan(value_T)]
    return float(known.mean()) if known.size else None
