"""Differences to a baseline as a picture: methods down, settings across."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from dcft_jax.reporting import canvas
from experiments.statistics import Comparison

LINEAR = 0.1  # nats
TICKS = (0.1, 1.0, 10.0)


def difference_figure(
    comparisons: Mapping[str, Mapping[str, Comparison]],
    methods: Sequence[str],
    xlabel: str,
    margin: float,
) -> Figure:
    """One panel for each setting: a dot for the mean, a thick bar for the bootstrap
    interval, a thin line for the t interval; grey is the margin of non-inferiority. The
    scale is linear up to `LINEAR` and logarithmic beyond: some methods end far away.

    Args:
      comparisons: setting -> method -> comparison; methods may be missing.
      methods: from top to bottom.
    """
    height = 1.5 + 0.28 * len(methods)
    figure, panels = canvas.figure(len(comparisons), height, sharey=True)
    figure.patch.set(facecolor="white", alpha=1.0)  # a file: the page may be dark
    for axes, (setting, found) in zip(panels, comparisons.items(), strict=True):
        canvas.label(axes, setting, "", "")
        axes.axvspan(-margin, margin, color=canvas.GRID, alpha=0.5, linewidth=0)
        axes.axvline(0.0, color=canvas.INK, linewidth=0.8)
        for y, method in enumerate(methods):
            if method in found:
                _draw(axes, y, found[method])
        axes.set_xscale("symlog", linthresh=LINEAR, linscale=1.0)
        most = _reach(list(found.values()), margin)
        axes.set_xlim(-most, most)
        ticks = [t for t in TICKS if t < most]
        axes.set_xticks([*(-t for t in reversed(ticks)), 0.0, *ticks])
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    figure.supxlabel(xlabel, fontsize=9.5, color=canvas.INK)
    return figure


def _draw(axes, y: int, comparison: Comparison) -> None:
    colour = canvas.line_style(0)["color"]
    axes.plot(comparison.t_interval, (y, y), color=colour, linewidth=1.0)
    axes.plot(comparison.bootstrap_interval, (y, y), color=colour, linewidth=4.0)
    axes.plot(comparison.mean, y, "o", color=canvas.INK, markersize=4)


def _reach(found: Sequence[Comparison], margin: float) -> float:
    """Wide enough for every mean; t intervals of few pairs may run out of view."""
    reach = [abs(x) for c in found for x in (c.mean, *c.bootstrap_interval) if x == x]
    return 1.6 * max([2 * margin, *reach])


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
