"""What a run leaves for people: metric writers, progress, plots and the HTML report."""

from dcft_jax.reporting.history import History, load_history
from dcft_jax.reporting.html import render_report, share, write_report
from dcft_jax.reporting.progress import Progress
from dcft_jax.reporting.summary import build_summary, summary_table, write_summary
from dcft_jax.reporting.writers import Nowhere, Writer, open_writers

__all__ = [
    "History",
    "Nowhere",
    "Progress",
    "Writer",
    "build_summary",
    "load_history",
    "open_writers",
    "render_report",
    "share",
    "summary_table",
    "write_report",
    "write_summary",
]
