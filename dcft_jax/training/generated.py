"""Accuracy of replies that the model of a run generates, verified."""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from dcft_jax.evaluation.from_examples import items_of
from dcft_jax.evaluation.items import Item
from dcft_jax.evaluation.judge import NOT_EXECUTED, judge
from dcft_jax.evaluation.sandbox import Choice, choose_backend
from dcft_jax.evaluation.statistics import accuracy
from dcft_jax.evaluation.task import Options, Subject, answer
from dcft_jax.training.run import Run

NOT_JUDGED = -1


@dataclasses.dataclass(frozen=True)
class Generation:
    """What replies are asked for, and where their programs run."""

    execution: Choice
    mix_val: list[list[Item]]  # of each ability, in an order that a seed shuffled
    test: list[list[Item]]


def open_generation(run: Run) -> Generation:
    """The held-out items of a run that replies can be judged by.

    Raises:
      ValueError, RuntimeError: the sandbox that the config names does not work here.
    """
    config = run.config.evaluation
    if not (config.generate_every or config.test_prompts):
        nothing: list[list[Item]] = [[] for _ in run.abilities]
        return Generation(NOT_EXECUTED, nothing, nothing)
    mix_val, test = (
        [_shuffled(run, name, split) for name in run.abilities]
        for split in ("mix_val", "test")
    )
    execution = NOT_EXECUTED
    if config.execute_code and jax.process_index() == 0:
        execution = choose_backend(config.sandbox, config.allow_weak_sandbox)
    if any(item.kind == "program" for items in mix_val for item in items):
        run.console.print(
            f"Generated code: {execution.reason}", markup=False, highlight=False
        )
    return Generation(execution, mix_val, test)


def _shuffled(run: Run, name: str, split: str) -> list[Item]:
    """In an order where the first are a fair sample of all sources."""
    items = items_of(name, run.data.held_out[name][split])
    items = [item for item in items if item.kind != "reference"]
    random.Random(f"{run.config.data.seed}/{name}/{split}").shuffle(items)
    return items


def can_reply(run: Run, step: int) -> bool:
    """Whether the model has learnt something: one of random weights never stops."""
    return step > 0 or run.base is not None


def is_due(run: Run, update: int, step: int) -> bool:
    """Whether the mix-val items are due at a mixture update."""
    every = run.config.evaluation.generate_every
    return every > 0 and update % every == 0 and can_reply(run, step)


def mix_val_accuracy(
    run: Run, generation: Generation, params: Any, update: int
) -> tuple[np.ndarray, dict[str, float]]:
    """Accuracy of each ability on the items due at an update, and metrics of them.

    The items rotate, `evaluation.mix_val_prompts` at a time. nan: none was judged.
    """
    config, chosen = run.config.evaluation, []
    first = update // config.generate_every * config.mix_val_prompts
    for items in generation.mix_val:
        size = min(config.mix_val_prompts, len(items))
        chosen.append([items[(first + i) % len(items)] for i in range(size)])
    return _measure(run, generation.execution, params, chosen, "mix_val")


def test_accuracy(run: Run, generation: Generation, params: Any) -> dict[str, float]:
    """Metrics of the first `evaluation.test_prompts` test items of each ability."""
    number = run.config.evaluation.test_prompts
    chosen = [items[:number] for items in generation.test]
    return _measure(run, generation.execution, params, chosen, "test")[1]


def _measure(
    run: Run,
    execution: Choice,
    params: Any,
    chosen: Sequence[Sequence[Item]],
    split: str,
) -> tuple[np.ndarray, dict[str, float]]:
    config = run.config.evaluation
    options = Options(
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
        seconds=config.seconds,
        seed=run.config.data.seed,
    )
    subject = Subject(run.program.model, run.full(params), run.data.tokenizer, run.mesh)
    accuracy_K, metrics = np.full(len(run.abilities), np.nan), {}
    for k, (name, items) in enumerate(zip(run.abilities, chosen, strict=True)):
        if not items:
            continue
        correct_N = _correct(run, items, subject, options, execution)
        found = accuracy(correct_N[correct_N != NOT_JUDGED])
        metrics[f"{split}/num_generated/{name}"] = float(found.n)
        if found.n:
            accuracy_K[k] = found.value
            metrics[f"{split}/accuracy/{name}"] = found.value
            metrics[f"{split}/accuracy_stderr/{name}"] = found.stderr
    return accuracy_K, metrics


def _correct(
    run: Run,
    items: Sequence[Item],
    subject: Subject,
    options: Options,
    execution: Choice,
) -> np.ndarray:
    """int8 [N]: 1 right, 0 wrong, NOT_JUDGED. The first process judges for all."""
    replies = answer(items, subject, options)
    correct_N = np.full(len(items), NOT_JUDGED, np.int8)
    if jax.process_index() == 0:
        texts = [None if one is None else [r.text for r in one] for one in replies]
        try:
            judged = judge(items, texts, execution)
        except RuntimeError as error:  # no reason to lose a run for
            run.console.print(f"Not judged: {error}", markup=False, highlight=False)
            judged = []
        for i, one in enumerate(judged):
            if one is not None and one[0].correct is not None:
                correct_N[i] = one[0].correct
    if jax.process_count() > 1:
        correct_N = np.asarray(multihost_utils.broadcast_one_to_all(correct_N))
    return correct_N
