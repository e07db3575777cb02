"""The report as a picture: regret of every method, by laws and by trained models, of
parts of the embedding, and by what was learnt from.
"""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.reporting import canvas

Entry = tuple[str, float, tuple[float, float]]  # name, mean, interval


def save_picture(found: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Draws what `report` returns; the suffix of the path says in which format."""
    panels, measured, laws = [], found["proved"]["methods"], found["laws"]
    if measured:
        relative = {method: one["relative"] for method, one in measured.items()}
        means = {method: one["mean"] for method, one in relative.items()}
        intervals = {method: one["interval"] for method, one in relative.items()}
        panels.append(("by trained models", _entries(means, intervals)))
    by_laws = _entries(laws["relative"], laws["relative_interval"])
    panels.append(("by laws", by_laws))
    for name, title in (
        ("ablation", "embedding"),
        ("ablation_surrogate", "surrogate"),
    ):
        if name in found:
            values = {key: one["relative"] for key, one in found[name].items()}
            intervals = {
                key: one["relative_interval"] for key, one in found[name].items()
            }
            panels.append((title, _entries(values, intervals)))
    most = max(len(entries) for _, entries in panels)
    figure, axes = canvas.figure(len(panels), 1.6 + 0.3 * most)
    figure.patch.set(facecolor="white", alpha=1.0)  # a file: the page may be dark
    for one, (title, entries) in zip(axes, panels, strict=True):
        canvas.label(one, title, "", "")
        _draw(one, entries)
    figure.supxlabel(
        "regret over the spread of a task's losses, 95 % interval",
        fontsize=9.5,
        color=canvas.INK,
    )
    buffer = io.BytesIO()
    kind = Path(path).suffix.removeprefix(".") or "png"
    figure.savefig(buffer, dpi=150, format=kind)
    atomic_write(path, buffer.getvalue())


def _entries(
    values: Mapping[str, float], intervals: Mapping[str, Sequence[float]]
) -> list[Entry]:
    """From the best to the worst."""
    names = sorted(values, key=values.__getitem__)
    return [(n, values[n], (intervals[n][0], intervals[n][1])) for n in names]


def _draw(axes, entries: Sequence[Entry]) -> None:
    colour = canvas.line_style(0)["color"]
    for y, (_, mean, interval) in enumerate(entries):
        axes.plot(interval, (y, y), color=colour, linewidth=3.0)
        axes.plot(mean, y, "o", color=canvas.INK, markersize=4)
    axes.set_yticks(range(len(entries)), [name for name, *_ in entries])
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.set_xlim(left=0.0)
