"""The plots about conflict: cosines, noise, coefficients, what the resolver did."""

from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dcft_jax.reporting import canvas
from dcft_jax.reporting.history import History

_CONFLICT_MAP = "RdBu"  # red: against each other, blue: together; colour-blind safe
_MAX_PAIRS = 6  # as heat maps side by side


def draw_cosines(history: History) -> Figure | None:
    """Cosine of every pair of abilities over time, and the last whole matrix."""
    cosine_TKK = history.cosines()
    measured_T = ~np.isnan(cosine_TKK).all(axis=(1, 2))
    if not measured_T.any():
        return None
    last_step, last_KK = history.step_T[measured_T][-1], cosine_TKK[measured_T][-1]
    step_T, cosine_TKK = canvas.thin(history.step_T[measured_T], cosine_TKK[measured_T])
    names = history.abilities
    pairs = list(combinations(range(len(names)), 2))
    height = max(3.6, 1.0 + 0.24 * len(pairs))
    figure, (left, right) = canvas.figure(2, height, width_ratios=(2.2, 1))
    pair_PT = np.stack([cosine_TKK[:, i, j] for i, j in pairs])
    limit = max(0.1, float(np.nanmax(np.abs(pair_PT))))
    scale = {"cmap": _CONFLICT_MAP, "vmin": -limit, "vmax": limit}
    edges = np.append(step_T, step_T[-1] + canvas.gap(step_T))
    rows = np.arange(len(pairs) + 1) - 0.5
    image = left.pcolormesh(edges, rows, pair_PT, rasterized=True, **scale)
    between = "\n" if len(pairs) <= 6 else " · "
    labels = [f"{names[i]}{between}{names[j]}" for i, j in pairs]
    left.set_yticks(range(len(pairs)), labels)
    left.invert_yaxis()
    _matrix(right, last_KK, names, scale)
    for ax in (left, right):
        ax.grid(visible=False)
    bar = figure.colorbar(image, ax=right, shrink=0.85)
    bar.ax.tick_params(colors=canvas.INK, labelsize=8)
    canvas.label(left, "every pair over time", "")
    canvas.label(right, f"at step {last_step}", "", "")
    return figure


def draw_blocks(history: History) -> Figure | None:
    """One heat map per pair of abilities: blocks against time."""
    cosine_NTKK, blocks = history.block_cosines()
    if not blocks or len(history.abilities) < 2:
        return None
    names = history.abilities
    pairs = list(combinations(range(len(names)), 2))[:_MAX_PAIRS]
    measured_T = ~np.isnan(cosine_NTKK).all(axis=(0, 2, 3))
    step_T = history.step_T[measured_T]
    edges = np.append(step_T, step_T[-1] + canvas.gap(step_T))
    rows = np.arange(len(blocks) + 1) - 0.5
    shown_NTKK = cosine_NTKK[:, measured_T]
    values = [shown_NTKK[:, :, i, j] for i, j in pairs]
    limit = max(0.1, float(np.nanmax(np.abs(values))))
    scale = {"cmap": _CONFLICT_MAP, "vmin": -limit, "vmax": limit}
    height = max(3.0, 1.0 + 0.2 * len(blocks))
    figure, axes = canvas.figure(len(pairs), height, sharey=True)
    image = None
    for ax, (i, j), value_NT in zip(axes, pairs, values, strict=True):
        image = ax.pcolormesh(edges, rows, value_NT, rasterized=True, **scale)
        ax.grid(visible=False)
        canvas.label(ax, f"{names[i]} and {names[j]}", "")
    axes[0].set_yticks(range(len(blocks)), blocks, fontsize=7.5)
    axes[0].invert_yaxis()
    if image is not None:
        bar = figure.colorbar(image, ax=axes[-1], shrink=0.85)
        bar.ax.tick_params(colors=canvas.INK, labelsize=8)
    return figure


def draw_noise(history: History) -> Figure | None:
    """Noise scale per ability next to the batch; cosines with and without bias."""
    scale_TK = history.per_ability("conflict/noise_scale")
    if np.isnan(scale_TK).all():
        return None
    figure, (left, right) = canvas.figure(2)
    smooth_TK = _running(scale_TK)
    canvas.ability_lines(left, history, smooth_TK, linewidth=1.8)
    tokens_TK = history.per_ability("train/response_tokens")
    for k in range(len(history.abilities)):
        step_N, total_N = canvas.known(history.step_T, tokens_TK[:, k])
        if len(step_N) > 1:
            batch_N = np.diff(total_N) / np.diff(step_N)
            style = canvas.line_style(k) | {"linestyle": ":"}
            left.plot(step_N[1:], _running(batch_N), **style, linewidth=1.2)
    left.set_yscale("log")
    names = history.abilities
    raw_TKK, free_TKK = history.cosines(), history.cosines("debiased_cosine")
    for number, (i, j) in enumerate(combinations(range(len(names)), 2)):
        style = canvas.line_style(number)
        label = f"{names[i]} · {names[j]}"
        step_N, free_N = canvas.known(history.step_T, free_TKK[:, i, j])
        right.plot(step_N, _running(free_N), **style, linewidth=1.8, label=label)
        step_N, raw_N = canvas.known(history.step_T, raw_TKK[:, i, j])
        right.plot(step_N, _running(raw_N), **(style | {"linestyle": ":"}))
    right.axhline(0, color=canvas.INK, linewidth=0.8)
    if len(names) > 1:
        right.legend(frameon=False, fontsize=8, labelcolor=canvas.INK)
    canvas.label(left, "noise scale; dotted: tokens in a step", "response tokens")
    canvas.label(right, "cosines, moving means", "")
    canvas.legend(figure, left)
    return figure


def _running(value_T: np.ndarray) -> np.ndarray:
    """Moving mean over a fifteenth of the run, of one or several columns."""
    if value_T.ndim == 1:
        return canvas.smooth(value_T, max(1, len(value_T) // 15))
    out_TK = np.full(value_T.shape, np.nan)
    for k, column_T in enumerate(value_T.T):
        known_T = ~np.isnan(column_T)
        out_TK[known_T, k] = _running(column_T[known_T])
    return out_TK


def draw_coefficients(history: History) -> Figure | None:
    """Coefficients of the update next to the weights they would be without conflict."""
    coefficient_TK = history.per_ability("conflict/coefficient")
    if np.isnan(coefficient_TK).all():
        return None
    figure, (ax,) = canvas.figure(height=3.0)
    canvas.ability_lines(ax, history, coefficient_TK, linewidth=1.6)
    weight_TK = history.per_ability("mixture/weight")
    for k in range(len(history.abilities)):
        style = canvas.line_style(k) | {"linestyle": ":"}
        step_N, weight_N = canvas.known(history.step_T, weight_TK[:, k])
        ax.plot(step_N, weight_N, **style, drawstyle="steps-post", linewidth=1.3)
    canvas.label(ax, "solid: coefficient   dotted: weight", "coefficient")
    canvas.legend(figure, ax)
    return figure


def draw_conflict(history: History) -> Figure | None:
    """How often the resolver acted, how far it moved the update, what was left."""
    step_N, acted_N = canvas.known(history.step_T, history.scalar("conflict/acted"))
    if not len(step_N):
        return None
    figure, (left, middle, right) = canvas.figure(3, height=2.9)
    share_N = 100 * np.cumsum(acted_N) / np.arange(1, len(acted_N) + 1)
    left.plot(step_N, share_N, color=canvas.INK, linewidth=2, label="acted so far")
    for name, style in (("rate", ":"), ("significant_rate", "--")):
        known = canvas.known(history.step_T, 100 * history.scalar(f"conflict/{name}"))
        if len(known[0]):
            label = "pairs below 0" if name == "rate" else "significantly"
            mean_N = canvas.smooth(known[1], max(1, len(known[1]) // 15))
            left.plot(
                known[0],
                mean_N,
                color=canvas.INK,
                linestyle=style,
                linewidth=1.2,
                label=label,
            )
    left.set_ylim(0, 105)
    left.legend(frameon=False, fontsize=8, labelcolor=canvas.INK)
    change = canvas.known(history.step_T, 100 * history.scalar("conflict/change"))
    middle.plot(*change, color=canvas.INK, linewidth=1, marker=".", markersize=4)
    middle.set_ylim(bottom=0)
    gap = canvas.known(history.step_T, history.scalar("conflict/pareto_gap"))
    right.plot(*gap, color=canvas.INK, linewidth=1.2)
    right.set_ylim(0, 1.05)
    canvas.label(left, "acted; pairs in conflict", "share (%)")
    canvas.label(middle, "how far it moved the update", "of the mean (%)")
    canvas.label(right, "distance to stationarity", "0: gradients cancel")
    return figure


def _matrix(
    ax: Axes, cosine_KK: np.ndarray, names: tuple[str, ...], scale: dict
) -> None:
    ax.imshow(cosine_KK, **scale)
    rotation = 30 if len(names) <= 4 else 60
    ax.set_xticks(range(len(names)), names, rotation=rotation, ha="right")
    ax.set_yticks(range(len(names)), names)
    for i, j in np.ndindex(*cosine_KK.shape):
        if not np.isnan(cosine_KK[i, j]):
            strong = abs(cosine_KK[i, j]) > 0.6 * scale["vmax"]
            color = "white" if strong else "#17181d"  # not INK: the cells keep theirs
            style: dict[str, Any] = {"ha": "center", "va": "center", "color": color}
            size = min(10, 38 / len(names))
            ax.text(j, i, f"{cosine_KK[i, j]:.2f}", fontsize=size, **style)
