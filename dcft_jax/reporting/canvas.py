"""How every plot looks: figure, axes, colours, and SVG in the theme of the page."""

import io
import re
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dcft_jax.reporting.history import History

# Okabe & Ito, "Color Universal Design" (2008), without black and with yellow last,
# which is hard to see on white.
_PALETTE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
)
_DASHES = ("-", "--", ":", "-.")  # once the colours are used up
INK = "#17181c"  # text and axes
GRID = "#d7d9de"
_WIDTH = 9.2  # inches
_MOST_POINTS = 600  # of a line; the page is not much wider in pixels


def line_style(index: int) -> dict[str, Any]:
    """Colour and dash of ability `index`, the same in every plot."""
    dash = _DASHES[index // len(_PALETTE) % len(_DASHES)]
    return {"color": _PALETTE[index % len(_PALETTE)], "linestyle": dash}


def figure(num_axes: int = 1, height: float = 3.4, **kwargs) -> tuple[Figure, list]:
    """A figure with `num_axes` axes side by side; no state outside of it."""
    canvas = Figure(figsize=(_WIDTH, height), layout="constrained")
    canvas.patch.set_alpha(0.0)
    axes = canvas.subplots(1, num_axes, squeeze=False, **kwargs)[0]
    for ax in axes:
        style(ax)
    return canvas, list(axes)


def style(ax: Axes) -> None:
    ax.patch.set_alpha(0.0)
    ax.set_axisbelow(True)
    ax.grid(color=GRID, linewidth=0.7)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(INK)
    ax.tick_params(colors=INK, labelsize=9)
    ax.xaxis.label.set_color(INK)
    ax.yaxis.label.set_color(INK)
    ax.title.set_color(INK)


def label(ax: Axes, title: str, y: str, x: str = "optimizer step") -> None:
    ax.set_title(title, fontsize=10.5, loc="left", fontweight="bold", color=INK)
    ax.set_xlabel(x, fontsize=9.5)
    ax.set_ylabel(y, fontsize=9.5)


def legend(canvas: Figure, ax: Axes) -> None:
    """One legend for the whole figure, below the axes: it never hides data."""
    handles, names = ax.get_legend_handles_labels()
    canvas.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=min(len(names), 6),
        frameon=False,
        fontsize=9.5,
        labelcolor=INK,
    )


def known(step_T: np.ndarray, value_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The steps at which something was measured, and the values there, thinned."""
    known_T = ~np.isnan(value_T)
    return thin(step_T[known_T], value_T[known_T])


def thin(step_N: np.ndarray, value_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `_MOST_POINTS` means of equally many rows, so that pages stay small.

    Rows run along the first axis; NaN does not count, a mean of only NaN is NaN.
    """
    if len(step_N) <= _MOST_POINTS:
        return step_N, value_N
    first_M = np.arange(0, len(step_N), -(-len(step_N) // _MOST_POINTS))
    sum_M = np.add.reduceat(np.nan_to_num(value_N), first_M)
    count_M = np.add.reduceat((~np.isnan(value_N)).astype(float), first_M)
    mean_M = np.divide(sum_M, count_M, out=sum_M * np.nan, where=count_M > 0)
    return step_N[first_M], mean_M


def smooth(value_N: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last `window` values (fewer at the start)."""
    total_N = np.cumsum(value_N)
    shifted_N = np.concatenate([np.zeros(min(window, len(value_N))), total_N])
    count_N = np.minimum(np.arange(1, len(value_N) + 1), window)
    return (total_N - shifted_N[: len(value_N)]) / count_N


def gap(step_T: np.ndarray) -> float:
    """The usual distance between two recorded steps."""
    return float(np.median(np.diff(step_T))) if len(step_T) > 1 else 1.0


def ability_lines(
    ax: Axes, history: History, value_TK: np.ndarray, **kwargs: Any
) -> None:
    """One line per ability, in its colour and with its name."""
    for k, ability in enumerate(history.abilities):
        step_N, value_N = known(history.step_T, value_TK[:, k])
        ax.plot(step_N, value_N, **(line_style(k) | kwargs), label=ability)


def to_svg(canvas: Figure, name: str) -> str:
    """An SVG element to put into a page; `name` keeps its ids apart from others'.

    Text and axes take the page's text colour, the grid its CSS variable --grid.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        canvas.savefig(buffer, format="svg", metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg, count=2)
    svg = re.sub(r'\sid="', f' id="{name}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'\swidth="[^"]*pt"', "", svg, count=1)
    svg = re.sub(r'\sheight="[^"]*pt"', "", svg, count=1)
    return svg.replace(INK, "currentColor").replace(GRID, "var(--grid)")
