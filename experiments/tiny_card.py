"""The model card of dcft-tiny, its table of sources, and its loss curve."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dcft_jax.reporting import canvas
from experiments.tables import markdown
from experiments.tiny_rows import SourceReport

CURVE = "loss.png"
_CARD = Path(__file__).with_suffix(".md")


def source_table(reports: Sequence[SourceReport]) -> str:
    """Markdown: size, share of the tokens, and what was removed."""
    total = sum(report.train_tokens for report in reports)
    header = ["source", "licence", "origin", "documents", "MB", "tokens", "share"]
    header += ["repeated", "held-out prompt", "held-out text"]
    table = [
        [
            *(report.name, report.licence, report.origin, f"{report.documents:,}"),
            *(f"{report.train_bytes / 1e6:.2f}", f"{report.train_tokens:,}"),
            f"{report.train_tokens / total:.1%}",
            *map(str, (report.repeated, report.same_prompt, report.contaminated)),
        ]
        for report in reports
    ]
    size = sum(report.train_bytes for report in reports) / 1e6
    documents = sum(report.documents for report in reports)
    table.append(["all", "", "", f"{documents:,}", f"{size:.2f}", f"{total:,}", "100%"])
    table[-1] += [
        str(sum(getattr(report, field) for report in reports))
        for field in ("repeated", "same_prompt", "contaminated")
    ]
    return markdown(header, table)


def loss_table(history: Sequence[dict], exported: dict[str, float]) -> str:
    """Markdown: held-out bits per byte at the start, at the end, and of the files."""
    first, last = history[0]["bits_per_byte"], history[-1]["bits_per_byte"]
    table = [
        [name, *(f"{found[name]:.3f}" for found in (first, last, exported))]
        for name in last
    ]
    return markdown(["source", "untrained", "trained", "in bfloat16"], table)


def loss_figure(history: Sequence[dict]) -> Figure:
    figure, (train, held_out) = canvas.figure(2, height=5.0)
    figure.patch.set(facecolor="white", alpha=1.0)  # a file: the page may be dark
    tokens_T = np.array([record["tokens"] for record in history]) / 1e6
    loss_T = np.array([record["train_loss"] for record in history], float)
    canvas.label(train, "train loss", "nats per token", "million tokens")
    train.plot(tokens_T, loss_T, **canvas.line_style(0))
    canvas.label(held_out, "held-out loss", "bits per byte", "million tokens")
    for index, name in enumerate(history[-1]["bits_per_byte"]):
        value_T = [record["bits_per_byte"][name] for record in history]
        held_out.plot(tokens_T, value_T, label=name, **canvas.line_style(index))
    canvas.legend(figure, held_out)
    return figure


def write_card(
    folder: Path,
    *,
    facts: dict[str, Any],
    reports: Sequence[SourceReport],
    history: Sequence[dict],
    exported: dict[str, float],
) -> None:
    """`README.md` and the curve.

    Args:
        facts: name -> value, for the table at the top.
        exported: bits per byte of the model read back from its files.
    """
    loss_figure(history).savefig(folder / CURVE, dpi=120)
    rows = [[name, str(value)] for name, value in facts.items()]
    text = _CARD.read_text().format(
        facts=markdown(["", ""], rows),
        sources=source_table(reports),
        losses=loss_table(history, exported),
        curve=CURVE,
    )
    (folder / "README.md").write_text(text)
