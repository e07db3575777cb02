"""report.html of a run: one file that needs nothing else, for people."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dcft_jax.reporting import canvas, jsonl
from dcft_jax.reporting.history import History, load_history
from dcft_jax.reporting.pace import duration
from dcft_jax.reporting.plots import PLOTS, Plot
from dcft_jax.reporting.summary import measured, summary_rows

REPORT_FILE = "report.html"

_CSS = """
:root { color-scheme: light dark; --ink: #17181c; --page: #ffffff; --soft: #5c616b;
  --grid: #d7d9de; --panel: #f5f6f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e7ea; --page: #15171b;
  --soft: #9aa0ab; --grid: #363a42; --panel: #1e2127; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 58rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .2rem; }
p { margin: .3rem 0 .6rem; } .soft { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--grid); }
th { font-weight: 600; color: var(--soft); font-size: .85rem; }
th:first-child, td:first-child { text-align: left; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr));
  gap: .7rem 1.2rem; margin: 1.2rem 0; padding: 1rem; background: var(--panel);
  border-radius: .5rem; }
dt { color: var(--soft); font-size: .8rem; } dd { margin: 0; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; } figure { margin: .4rem 0; }
pre { background: var(--panel); padding: 1rem; overflow-x: auto; font-size: .8rem;
  border-radius: .5rem; }
"""


def write_report(workdir: str | Path) -> Path:
    """Makes report.html from what the run has recorded so far; returns its path.

    Raises:
      FileNotFoundError: `workdir` is not the folder of a run.
      ValueError: a file of the run is damaged.
    """
    history = load_history(workdir)
    path = history.workdir / REPORT_FILE
    jsonl.replace_file(path, render_report(history))
    return path


def render_report(history: History) -> str:
    """The page as text."""
    name = escape(history.workdir.resolve().name)
    summary = history.summary or measured(history)
    config = escape(json.dumps(history.config, indent=2, ensure_ascii=False))
    body = [
        f"<h1>{name}</h1>",
        f'<p class="soft">{escape(_state(history, summary))}</p>',
        _facts(summary),
        "<h2>Before and after</h2>",
        '<p class="soft">Test split, ± one standard error. Loss in nats per response '
        "token; exact match over the examples with a single right reply; generated: "
        "replies that were verified, code by running its tests.</p>",
        _table(*summary_rows(summary)),
        *(_section(plot, history) for plot in PLOTS),
        "<h2>Path of the weights</h2>",
        _weights_table(summary),
        f"<h2>Config</h2><details><summary>Show</summary><pre>{config}</pre></details>",
    ]
    head = (
        '<meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{_CSS}</style>"
    )
    page = "\n".join(body)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>'
        f"\n<body>\n{page}\n</body></html>\n"
    )


def _state(history: History, summary: Mapping[str, Any]) -> str:
    num_steps = summary["num_steps"]
    if history.summary:
        return f"Finished: {num_steps} steps."
    step = history.step_T[-1] if len(history.step_T) else 0
    return f"Not finished: recorded up to step {step} of {num_steps}."


def _facts(summary: Mapping[str, Any]) -> str:
    acted = summary["resolver_action_rate"]
    facts = {
        "abilities": ", ".join(summary["abilities"]),
        "mixture rule": summary["rule"],
        "resolver": summary["resolver"],
        "resolver acted": None if acted is None else f"{acted:.0%} of logged steps",
        "seed": summary["seed"],
        "tokens": f"{summary['tokens']:,}",
        "wall time": duration(summary["wall_s"]),
        "evaluation": share(summary["eval_s"], summary["wall_s"]),
        "generation in it": share(summary.get("generate_s", 0.0), summary["wall_s"]),
        "passes for the mixture": share(summary["extra_s"], summary["wall_s"]),
    }
    if "num_parameters" in summary:
        facts["parameters"] = f"{summary['num_parameters']:,}"
        facts["config hash"] = summary["config_hash"]
        facts["versions"] = ", ".join(
            f"{package} {version}" for package, version in summary["versions"].items()
        )
    items = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in facts.items()
        if value is not None
    )
    return f"<dl>{''.join(items)}</dl>"


def share(part: float, whole: float) -> str:
    return f"{part / whole:.1%} of the time" if whole else "-"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = (
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        for cells in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _weights_table(summary: Mapping[str, Any]) -> str:
    path = summary["weights_path"]
    if not path:
        return '<p class="soft">Left out: no mixture weights are recorded.</p>'
    rows = [[str(step), *(f"{w:.3f}" for w in weights)] for step, weights in path]
    table = _table(["step", *summary["abilities"]], rows)
    return f"<details><summary>{len(rows)} rows</summary>{table}</details>"


def _section(plot: Plot, history: History) -> str:
    title = f"<h2>{escape(plot.title)}</h2>"
    figure = plot.draw(history)
    if figure is None:
        missing = f"Left out: {plot.needs} is not in the record of this run."
        return f'{title}<p class="soft">{escape(missing)}</p>'
    return (
        f'{title}<p class="soft">{escape(plot.how_to_read)}</p>'
        f'<figure role="img" aria-label="{escape(plot.title)}">'
        f"{canvas.to_svg(figure, plot.name)}</figure>"
    )
