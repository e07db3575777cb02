"""The plots of a run: from its history to a figure, or None where data are missing."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dcft_jax.reporting import canvas, conflict_plots, mixture_plots
from dcft_jax.reporting.history import History
from dcft_jax.reporting.summary import measured


@dataclass(frozen=True)
class Plot:
    name: str
    title: str
    how_to_read: str
    needs: str  # what is missing when there is no figure
    draw: Callable[[History], Figure | None]


def draw_weights(history: History) -> Figure | None:
    """Mixture weights and, thin and dotted, the share of slots they turned into."""
    weight_TK = history.per_ability("mixture/weight")
    slots_TK = history.per_ability("mixture/slots")
    if np.isnan(weight_TK).all():
        return None
    figure, (ax,) = canvas.figure()
    canvas.ability_lines(ax, history, weight_TK, drawstyle="steps-post", linewidth=2.2)
    share_TK = slots_TK / slots_TK.sum(axis=1, keepdims=True)
    for k in range(len(history.abilities)):
        step_N, share_N = canvas.known(history.step_T, share_TK[:, k])
        mean_N = canvas.smooth(share_N, max(1, len(share_N) // 10))
        style = canvas.line_style(k) | {"linestyle": ":"}
        ax.plot(step_N, mean_N, **style, linewidth=1.3, alpha=0.8)
    ax.set_ylim(bottom=0)
    canvas.label(ax, "solid: weight   dotted: share of slots (moving mean)", "share")
    canvas.legend(figure, ax)
    return figure


def draw_losses(history: History) -> Figure | None:
    """Loss on the training batches (left) and on mix-val with its error (right)."""
    train_TK = history.per_ability("train/loss")
    mix_val_TK = history.per_ability("mix_val/loss")
    if np.isnan(train_TK).all() and np.isnan(mix_val_TK).all():
        return None
    figure, (left, right) = canvas.figure(2, sharey=True)
    for k, ability in enumerate(history.abilities):
        step_N, loss_N = canvas.known(history.step_T, train_TK[:, k])
        style = canvas.line_style(k)
        left.plot(step_N, loss_N, **style, linewidth=0.8, alpha=0.35)
        mean_N = canvas.smooth(loss_N, max(1, len(loss_N) // 15))
        left.plot(step_N, mean_N, **style, linewidth=2, label=ability)
    canvas.ability_lines(right, history, mix_val_TK, marker="o", markersize=3.5)
    _bands(right, history, mix_val_TK, history.per_ability("mix_val/loss_stderr"))
    canvas.label(left, "training batches (bold: moving mean)", "nats per token")
    canvas.label(right, "mix-val (band: ± standard error)", "")
    canvas.legend(figure, left)
    return figure


def draw_exact_match(history: History) -> Figure | None:
    """Exact match, and beside it verified replies if any were generated."""
    panels = []
    for name, title in (
        ("exact_match", "greedy answers on mix-val: exact match"),
        ("accuracy", "generated replies on mix-val: verified"),
    ):
        value_TK = 100 * history.per_ability(f"mix_val/{name}")
        if not np.isnan(value_TK).all():
            stderr_TK = 100 * history.per_ability(f"mix_val/{name}_stderr")
            panels.append((title, value_TK, stderr_TK))
    if not panels:
        return None
    figure, axes = canvas.figure(len(panels), height=3.0)
    for ax, (title, value_TK, stderr_TK) in zip(axes, panels, strict=True):
        canvas.ability_lines(ax, history, value_TK, marker="o", markersize=3.5)
        _bands(ax, history, value_TK, stderr_TK)
        ax.set_ylim(bottom=0)
        canvas.label(ax, title, "%")
    canvas.legend(figure, axes[0])
    return figure


def draw_before_after(history: History) -> Figure | None:
    """Test loss and exact match per ability before (pale) and after (full)."""
    abilities = dict((history.summary or measured(history))["abilities"])
    if all(record["test_loss_before"] is None for record in abilities.values()):
        return None
    figure, (left, right) = canvas.figure(2)
    for k, record in enumerate(abilities.values()):
        _bars(left, k, record, "test_loss", 1.0)
        _bars(right, k, record, "exact_match", 100.0)
        baseline = record.get("majority_baseline")
        if baseline is not None:
            ends = (k - 0.45, k + 0.45)
            style = {"color": canvas.INK, "linestyle": "--", "linewidth": 1.3}
            line = right.hlines(100 * baseline, *ends, **style)
            line.set_label("always the most frequent answer")
    for ax in (left, right):
        ax.set_xticks(range(len(abilities)), list(abilities))
        ax.grid(visible=False, axis="x")
    canvas.label(left, "test loss: before (pale), after (full)", "nats per token", "")
    canvas.label(right, "exact match: before (pale), after (full)", "%", "")
    handles, names = right.get_legend_handles_labels()
    if handles:
        style = {"frameon": False, "fontsize": 8.5, "labelcolor": canvas.INK}
        right.legend(handles[:1], names[:1], loc="upper right", **style)
        right.margins(y=0.2)
    return figure


def draw_speed(history: History) -> Figure | None:
    """Throughput, and the share of the time so far that went into evaluation."""
    speed = canvas.known(history.step_T, history.scalar("train/tokens_per_s"))
    if not len(speed[0]):
        return None
    figure, (left, right) = canvas.figure(2, height=2.9)
    left.plot(*speed, color=canvas.INK, linewidth=1.3)
    left.set_ylim(bottom=0)
    left.yaxis.set_major_formatter("{x:,.0f}")
    eval_T = np.cumsum(np.nan_to_num(history.scalar("run/eval_s")))
    wall_T = history.scalar("wall_s")
    share_T = np.divide(100 * eval_T, wall_T, out=wall_T * np.nan, where=wall_T > 0)
    right.plot(*canvas.known(history.step_T, share_T), color=canvas.INK, linewidth=2)
    right.set_ylim(0, 105)
    canvas.label(left, "training speed", "tokens per second")
    canvas.label(right, "evaluation, share of time so far", "wall time (%)")
    return figure


PLOTS = (
    Plot(
        "weights",
        "Mixture weights",
        "How much each ability counts in the objective. The weights move at "
        "evaluations only; the dotted share of slots should stay close to them.",
        "mixture weights",
        draw_weights,
    ),
    Plot(
        "losses",
        "Loss per ability",
        "Lower is better. Compare a curve with its own start: the level depends on "
        "how predictable the replies are, so abilities do not compare directly.",
        "losses",
        draw_losses,
    ),
    Plot(
        "exact-match",
        "Exact match during training",
        "Share of replies reproduced exactly by greedy decoding, over the examples "
        "that have a single right reply; and, where replies were generated, the share "
        "that was verified, code by running its tests. Bands: ± one standard error.",
        "exact match on mix-val",
        draw_exact_match,
    ),
    Plot(
        "before-after",
        "Test split, before and after",
        "Bars with one standard error, on examples that nothing in training reads. "
        "An exact match at the majority line is what one constant answer scores.",
        "a test evaluation",
        draw_before_after,
    ),
    Plot(
        "repetition",
        "How often were data repeated?",
        "Epochs over the train rows. An ability that gets much weight and has few rows "
        "is seen again and again: `max_epochs` caps that.",
        "counts of consumed rows",
        mixture_plots.draw_repetition,
    ),
    Plot(
        "cosines",
        "Do the abilities pull together?",
        "Cosine between the gradients of two abilities. Red: a step for one undoes "
        "the other. Blue: they help each other. White: they do not meet.",
        "gradient cosines of at least two abilities",
        conflict_plots.draw_cosines,
    ),
    Plot(
        "blocks",
        "Where in the model do they conflict?",
        "The same cosines for every block of parameters. Recorded with "
        "conflict.log_blocks, or when conflicts are resolved per block.",
        "cosines of blocks (conflict.log_blocks=True)",
        conflict_plots.draw_blocks,
    ),
    Plot(
        "noise",
        "How noisy are the gradients?",
        "Left: tokens at which noise and gradient are equally large; with far fewer in "
        "a step (dotted) cosines say little, with far more they are wasted. Right: "
        "cosines as measured (dotted) and freed of that noise (solid).",
        "noise within abilities (at least two slots of one in a step)",
        conflict_plots.draw_noise,
    ),
    Plot(
        "coefficients",
        "Coefficients of the update",
        "The update is the sum of the ability gradients times these. Where solid and "
        "dotted lines agree, nothing conflicted; the gap is the resolver's work.",
        "coefficients of the resolver",
        conflict_plots.draw_coefficients,
    ),
    Plot(
        "conflict",
        "How often the resolver acted",
        "Left: share of the logged steps so far with a conflict that was resolved. "
        "Right: length of the change relative to the plain weighted mean.",
        "a record of resolved conflicts",
        conflict_plots.draw_conflict,
    ),
    Plot(
        "speed",
        "Speed",
        "Dips on the left are slow steps; the right tells what evaluation costs.",
        "training speed",
        draw_speed,
    ),
)


def _bands(
    ax: Axes, history: History, value_TK: np.ndarray, stderr_TK: np.ndarray
) -> None:
    for k in range(len(history.abilities)):
        color = canvas.line_style(k)["color"]
        low_T = value_TK[:, k] - stderr_TK[:, k]
        high_T = value_TK[:, k] + stderr_TK[:, k]
        known_T = ~np.isnan(low_T)
        band = (history.step_T[known_T], low_T[known_T], high_T[known_T])
        ax.fill_between(*band, color=color, alpha=0.2, linewidth=0)


def _bars(ax: Axes, k: int, record: dict, metric: str, scale: float) -> None:
    color = canvas.line_style(k)["color"]
    for when, offset, alpha in (("before", -0.2, 0.4), ("after", 0.2, 1.0)):
        value = record[f"{metric}_{when}"]
        if value is None:
            continue
        stderr = scale * (record[f"{metric}_stderr_{when}"] or 0.0)
        x, height = k + offset, scale * value
        ax.bar(x, height, 0.36, color=color, alpha=alpha)
        ax.errorbar(x, height, stderr, color=canvas.INK, capsize=3, linewidth=1)
        text = f"{height:.2f}" if scale == 1 else f"{height:.0f}"
        line = scale * (record.get("majority_baseline") or 0.0) if scale != 1 else 0.0
        top = {"xy": (x, max(height + stderr, line)), "xytext": (0, 3)}
        style = {"ha": "center", "fontsize": 8.5, "color": canvas.INK}
        ax.annotate(text, **top, textcoords="offset points", **style)
