"""Makes report.html of a run, finished or not.

python -m dcft_jax.report WORKDIR
python -m dcft_jax.report WORKDIR --specialists runs/maths runs/code runs/general
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dcft_jax.reporting import load_history, write_report
from dcft_jax.reporting.normalised import HEADER, normalised_rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dcft_jax.report",
        description="Makes report.html of a run, finished or not.",
    )
    parser.add_argument("workdir", help="folder that training was started with")
    parser.add_argument(
        "--specialists",
        nargs="+",
        default=[],
        metavar="WORKDIR",
        help="finished runs of one ability each: also print the scores between the "
        "base's (0) and theirs (1)",
    )
    args = parser.parse_args(argv)
    try:
        print(write_report(args.workdir))
        if args.specialists:
            summary, *others = map(_summary, (args.workdir, *args.specialists))
            _print_normalised(normalised_rows(summary, others))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")


def _summary(workdir: str) -> Mapping[str, Any]:
    found = load_history(workdir).summary
    if found is None:
        raise ValueError(f"{workdir}: the run has not finished")
    return found


def _print_normalised(rows: Sequence[Sequence[str]]) -> None:
    table = Table(title="Between base (0) and specialist (1)", box=box.SIMPLE)
    for name in HEADER:
        table.add_column(name, justify="left" if name in HEADER[:2] else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


if __name__ == "__main__":
    main()
