"""Tables and a picture of plans."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from dcft_jax.reporting import canvas
from experiments.tables import markdown

Row = Mapping[str, Any]  # the JSON of a plan, and "processor_seconds"

HEADER = (
    "",
    "slice",
    "mesh",
    "parameters",
    "tokens of a step",
    "GiB of a chip",
    "PFLOP of a step",
    "GB that a chip gets",
    "bound of a step",
    "MFU there",
    "compiled in",
)


def scale_tables(configs: Mapping[str, Row], grid: Mapping[str, Row]) -> str:
    """Markdown: the configs of this repository, then sizes by chips."""
    named = {f"`{name}.py`": row for name, row in configs.items()}
    parts = [
        f"{title}\n\n{markdown(HEADER, [_line(n, row) for n, row in rows.items()])}"
        for title, rows in (
            ("Configs of this repository", named),
            ("Llama 3, all parameters, 4,096 tokens a chip (70B: 1,024)", grid),
        )
        if rows
    ]
    return "\n".join(parts)


def _line(name: str, row: Row) -> list[str]:
    trained = row["trained_parameters"]
    parameters = f"{row['parameters'] / 1e9:.2f} B"
    if trained != row["parameters"]:
        parameters += f", {trained / 1e6:.0f} M trained"
    axes = (f"{axis} {n}" for axis, n in row["mesh"].items() if n > 1)
    fits = "" if row["fits"] else ": **does not fit**"
    needed, bound = row["hbm_gib_per_chip"], row["step_seconds_estimate"]
    return [
        name,
        f"{row['topology']} ({row['num_chips']})",
        ", ".join(axes),
        parameters,
        f"{row['tokens_per_step']:,}",
        f"{needed:.1f} of {row['hbm_capacity_gib']:g}{fits}",
        f"{row['flops_per_step'] / 1e15:.2f}",
        f"{gigabytes(row):.1f}" if bound else "",
        f"{bound:.2f} s, {row['bound_by']}" if bound else "",
        f"{row['mfu_estimate']:.0%}" if bound else "",
        f"{row['processor_seconds']:.0f} s",
    ]


def gigabytes(row: Row) -> float:
    """That a chip gets in a step, by all collectives."""
    moved = row["collective_bytes"].values()
    return sum(n for axes in moved for n in axes.values()) / 1e9


def scale_figure(grid: Mapping[str, Row]) -> Figure:
    """Memory, operations and traffic of a chip by chips; compilation by layers."""
    figure = Figure(figsize=(9.2, 5.6), layout="constrained")
    figure.patch.set_facecolor("white")
    panels = figure.subplots(2, 2).flat
    measures = (
        ("Memory", "GiB of a chip", lambda row: row["hbm_gib_per_chip"]),
        ("Operations", "TFLOP of a chip and step", _teraflops),
        ("Traffic", "GB that a chip gets in a step", gigabytes),
    )
    # A program that needs more memory than there is has no more than its memory known.
    compiled = {n: row for n, row in grid.items() if row["step_seconds_estimate"]}
    for axes, (title, unit, measure) in zip(panels, measures, strict=False):
        _by_chips(axes, grid if title == "Memory" else compiled, measure)
        canvas.label(axes, title, unit, "chips")
    _by_layers(panels[3], compiled)
    canvas.label(panels[3], "Compilation", "s of processor time", "layers")
    canvas.legend(figure, panels[0])
    return figure


def _teraflops(row: Row) -> float:
    return row["flops_per_step"] / row["num_chips"] / 1e12


def _by_chips(axes, grid: Mapping[str, Row], measure) -> None:
    canvas.style(axes)
    for k, model in enumerate(_models(grid)):
        found = [row for name, row in grid.items() if name.startswith(model + " ")]
        found.sort(key=lambda row: row["num_chips"])
        chips = [row["num_chips"] for row in found]
        style = canvas.line_style(k)
        axes.plot(chips, [measure(r) for r in found], "o", label=model, **style)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)


def _by_layers(axes, grid: Mapping[str, Row]) -> None:
    canvas.style(axes)
    for k, model in enumerate(_models(grid)):
        found = [row for name, row in grid.items() if name.startswith(model + " ")]
        layers = [row["num_layers"] for row in found]
        seconds = [row["processor_seconds"] for row in found]
        axes.plot(layers, seconds, "o", **canvas.line_style(k))
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)


def _models(grid: Mapping[str, Row]) -> list[str]:
    return list(dict.fromkeys(name.split()[0] for name in grid))
