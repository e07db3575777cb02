"""Makes report.html of a run, finished or not.

python -m dcft_jax.report WORKDIR
"""

import argparse
import sys
from collections.abc import Sequence

from dcft_jax.reporting import write_report


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dcft_jax.report",
        description="Makes report.html of a run, finished or not.",
    )
    parser.add_argument("workdir", help="folder that training was started with")
    workdir = parser.parse_args(argv).workdir
    try:
        print(write_report(workdir))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
