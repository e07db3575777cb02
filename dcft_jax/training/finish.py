"""What a finished run leaves behind: summary.json, report.html and a table."""

from collections.abc import Sequence
from typing import Any

import jax

from dcft_jax.distributed import is_first
from dcft_jax.reporting import (
    build_summary,
    load_history,
    share,
    summary_table,
    write_report,
    write_summary,
)
from dcft_jax.training.experience import add_experience
from dcft_jax.training.full_disk import warn_if_full
from dcft_jax.training.run import Run
from dcft_jax.training.state import TrainState


def finish(
    run: Run, state: TrainState, unwritten: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Writes the summary and the report, shows both, returns the summary.

    What a full disk has no space for is shown all the same.

    Args:
      unwritten: rows of metrics that are not on the disk, known to the first process.
    """
    data, metadata = run.data, run.metadata()
    test = {name: data.rows[name]["test"] for name in run.abilities}
    summary = build_summary(
        load_history(run.workdir, unwritten),
        majority_baseline=data.majority_baseline,
        test_examples={name: rows.num_examples for name, rows in test.items()},
        scored_examples={n: rows.num_scored for n, rows in test.items()},
        num_parameters=sum(x.size for x in jax.tree.leaves(state.params)),
        config_hash=metadata["config_hash"],
        versions=metadata["versions"],
    )
    add_experience(run, state, summary)
    if not is_first():
        return summary
    path, report = run.workdir / "summary.json", None
    with warn_if_full(path, run.report):
        write_summary(path, summary)
    with warn_if_full(run.workdir / "report.html", run.report):
        report = write_report(run.workdir)
    run.console.print(summary_table(summary))
    wall_s = summary["wall_s"]
    run.console.print(
        f"Evaluation: {share(summary['eval_s'], wall_s)}; of that generated replies: "
        f"{share(summary['generate_s'], wall_s)}.",
        highlight=False,
    )
    run.console.print("Mixture weights over time", " / ".join(run.abilities))
    for step, weights_K in summary["weights_path"]:
        shown = " / ".join(f"{weight:.3f}" for weight in weights_K)
        run.console.print(f"  step {step:>6}: {shown}", highlight=False)
    if report is not None:
        run.console.print(f"Report: {report}", soft_wrap=True)
    return summary
