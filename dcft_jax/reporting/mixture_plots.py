"""The plot about data: how often they were repeated, and of which difficulty."""

import numpy as np
from matplotlib.figure import Figure

from dcft_jax.reporting import canvas
from dcft_jax.reporting.history import History

_DASHES = ("-", "--", "-.", ":")  # of the tiers, easiest first


def draw_repetition(history: History) -> Figure | None:
    """Epochs of every ability, and of every tier where an ability has several."""
    epochs_TK = history.per_ability("mixture/epochs")
    if np.isnan(epochs_TK).all():
        return None
    tiers = tier_columns(history, "mixture/tier_epochs")
    figure, axes = canvas.figure(2 if tiers else 1)
    canvas.ability_lines(axes[0], history, epochs_TK, linewidth=2)
    axes[0].axhline(1, color=canvas.INK, linewidth=0.8)
    canvas.label(axes[0], "whole abilities", "epochs")
    if tiers:
        for (ability, tier), epochs_T in tiers.items():
            step_N, epochs_N = canvas.known(history.step_T, epochs_T)
            style = canvas.line_style(history.abilities.index(ability))
            style |= {"linestyle": _DASHES[tier % len(_DASHES)]}
            axes[1].plot(step_N, epochs_N, **style, linewidth=1.6)
        canvas.label(axes[1], "tiers, easiest solid, then - -, - ., . .", "")
    canvas.legend(figure, axes[0])
    return figure


def tier_columns(history: History, prefix: str) -> dict[tuple[str, int], np.ndarray]:
    """[T] values of `prefix/<ability>/<tier>` by ability and tier, in their order."""
    found = {}
    for ability in history.abilities:
        start = f"{prefix}/{ability}/"
        keys = [key for key in history.columns if key.startswith(start)]
        for tier in sorted(int(key[len(start) :]) for key in keys):
            found[ability, tier] = history.columns[f"{start}{tier}"]
    return found
