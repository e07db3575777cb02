"""The weights that each rule chose on one problem, in small multiples."""

from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath

import matplotlib
from matplotlib.figure import Figure

from dcft_jax.reporting import canvas
from experiments.mixture_problems import Path

COLUMNS = 4


def weights_figure(
    paths: Mapping[str, Path], names: Sequence[str], shift: int
) -> Figure:
    """One panel per rule, the same colours for the same abilities in all.

    Args:
      names: of the abilities.
      shift: step at which the data change; a vertical line.
    """
    num_rows = -(-len(paths) // COLUMNS)
    figure = Figure(figsize=(9.2, 0.7 + 1.55 * num_rows), layout="constrained")
    figure.patch.set_facecolor("white")
    panels = figure.subplots(num_rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    last = min(path.step_U[-1] for path in paths.values())
    for axes, (rule, path) in zip(panels.flat, paths.items(), strict=False):
        canvas.style(axes)
        canvas.label(axes, rule, "", "")
        axes.axvline(shift, color=canvas.INK, linewidth=0.6, linestyle=":")
        for k, name in enumerate(names):
            style = canvas.line_style(k)
            weight_U = path.weights_UK[:, k]
            axes.plot(path.step_U, weight_U, linewidth=1.0, label=name, **style)
        axes.set_xlim(0, last)
        axes.set_ylim(0, 1)
    for axes in panels.flat[len(paths) :]:
        axes.set_visible(False)
    canvas.legend(figure, figure.axes[0])
    for axes in panels[-1]:
        axes.set_xlabel("optimizer step", fontsize=9.5)
    figure.supylabel("mixture weight", fontsize=9.5, color=canvas.INK)
    return figure


def write_svg(figure: Figure, path: FilePath) -> None:
    """The same bytes for the same figure."""
    with matplotlib.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None, "Creator": None})
