"""Scores between those of the base model and of a specialist."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dcft_jax.evaluation.statistics import Estimate, specialist_normalised

# Metric of summary.json -> how it is called.
METRICS = {
    "test_loss": "test loss",
    "exact_match": "exact match",
    "accuracy": "generated",
}
HEADER = ["ability", "metric", "base", "this run", "specialist", "normalised"]


def normalised_rows(
    summary: Mapping[str, Any], specialists: Sequence[Mapping[str, Any]]
) -> list[list[str]]:
    """(score - base) / (specialist - base), a row for each ability and metric.

    0: as the model before training, 1: as a run on this ability alone. "undefined"
    where the specialist's gain is within two standard errors of nothing.

    Args:
      summary: summary.json of a run.
      specialists: those of runs of the same model and data, of one ability each.

    Raises:
      ValueError: a specialist of several abilities, of one that the run does not
        train, or two of one ability.
    """
    by_ability: dict[str, Mapping[str, Any]] = {}
    for specialist in specialists:
        names = list(specialist["abilities"])
        if len(names) != 1:
            raise ValueError(
                f"a specialist trains one ability, this run {', '.join(names)}"
            )
        (name,) = names
        if name not in summary["abilities"]:
            raise ValueError(
                f"a specialist of {name}, but the run trains "
                f"{', '.join(summary['abilities'])}"
            )
        if name in by_ability:
            raise ValueError(f"two specialists of {name}; give one for each ability")
        by_ability[name] = specialist["abilities"][name]
    return [
        row
        for name, specialist in by_ability.items()
        for metric in METRICS
        if (row := _row(name, metric, summary["abilities"][name], specialist))
    ]


def _row(
    name: str, metric: str, record: Mapping[str, Any], specialist: Mapping[str, Any]
) -> list[str] | None:
    base = _estimate(record, metric, "before") or _nothing(metric)
    found = _estimate(record, metric, "after")
    best = _estimate(specialist, metric, "after")
    if base is None or found is None or best is None:
        return None
    value = specialist_normalised(found, base, best)
    cells = [_shown(one) for one in (base, found, best)]
    return [name, METRICS[metric], *cells, _shown(value) if value else "undefined"]


def _estimate(record: Mapping[str, Any], metric: str, when: str) -> Estimate | None:
    value = record.get(f"{metric}_{when}")
    stderr = record.get(f"{metric}_stderr_{when}")
    if value is None:
        return None
    return Estimate(
        value, math.nan if stderr is None else stderr, math.nan, math.nan, 0
    )


def _nothing(metric: str) -> Estimate | None:
    """Random weights answer nothing, and are not asked for replies."""
    return Estimate(0.0, 0.0, 0.0, 0.0, 0) if metric == "accuracy" else None


def _shown(one: Estimate) -> str:
    return f"{one.value:.3f} ± {one.stderr:.3f}"
