"""The scores of a model on one task."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from dcft_jax.data import Example, Tokenizer
from dcft_jax.evaluation.items import Item
from dcft_jax.evaluation.judge import NOT_EXECUTED, Judgement, chance_level, judge
from dcft_jax.evaluation.likelihood import score_replies
from dcft_jax.evaluation.replies import Reply, generate_replies
from dcft_jax.evaluation.sandbox import Choice
from dcft_jax.evaluation.statistics import (
    Estimate,
    accuracy,
    bits_per_byte,
    choice_accuracy,
    mean_pass_at_k,
)
from dcft_jax.models import ModelConfig, Params, Sampling


class Subject(NamedTuple):
    """The model that is evaluated, under `jax.set_mesh(mesh)`."""

    model: ModelConfig
    params: Params
    tokenizer: Tokenizer
    mesh: jax.sharding.Mesh


@dataclasses.dataclass(frozen=True)
class Options:
    """How a task is evaluated.

    Attributes:
      generate: also judge replies; without it only likelihoods are computed.
      max_new_tokens: of a reply.
      num_samples, sampling: replies per item, and how they are drawn.
      ks: of pass@k, each at most `num_samples`.
      seconds: for the replies of a task; 0: no limit. See `generate_replies`.
      max_length: tokens of a prompt, and of a text whose likelihood is computed.
      batch_size: sequences computed at once.
      seed: of the sampling, and of who is answered first.
    """

    generate: bool = True
    max_new_tokens: int = 256
    num_samples: int = 1
    sampling: Sampling = Sampling()  # noqa: RUF009 (frozen)
    ks: tuple[int, ...] = (1,)
    seconds: float = 0.0
    max_length: int = 2048
    batch_size: int = 16
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Score:
    """One number of a task; `total` counts the items, also those not evaluated."""

    task: str
    metric: str
    estimate: Estimate
    total: int
    chance: float = math.nan  # nan: there is none, or it was not measured
    note: str = ""


class TaskResult(NamedTuple):
    scores: list[Score]
    records: list[dict[str, Any]]  # one per item, JSON-able


# `advance(what, done, total)`: called as work goes on.
Advance = Callable[[str, int, int], None]


def evaluate_task(
    task: str,
    items: Sequence[Item],
    subject: Subject,
    options: Options,
    execution: Choice = NOT_EXECUTED,
    advance: Advance = lambda what, done, total: None,
) -> TaskResult:
    """Accuracy with its chance level, and bits per byte of the references.

    With several processes all call it, and all judge.

    Args:
      items: all of kind "choice", or none.
      execution: the sandbox for programs; without one these have no accuracy, and a
        note that says why.

    Raises:
      ValueError: an option is out of range, or the items are of several kinds.
      RuntimeError: the sandbox stopped working.
    """
    kinds = {item.kind for item in items}
    if "choice" in kinds and len(kinds) > 1:
        raise ValueError(
            f"task {task!r} has items of kinds {', '.join(sorted(kinds))}; choices "
            "need a task of their own"
        )
    records: list[dict[str, Any]] = [
        {"id": item.id, "prompt": item.prompt, "reference": item.reference}
        for item in items
    ]
    if kinds == {"choice"}:
        scores = _choices(task, items, subject, options, records, advance)
        return TaskResult(scores, records)
    scores = []
    if any(item.reference for item in items):
        scores.append(_references(task, items, subject, options, records, advance))
    judged = [i for i, item in enumerate(items) if item.kind != "reference"]
    if options.generate and judged:
        chosen = [items[i] for i in judged]
        theirs = [records[i] for i in judged]
        scores += _replies(task, chosen, subject, options, execution, theirs, advance)
    return TaskResult(scores, records)


def _conversation(item: Item, reply: str) -> Example:
    return Example((*item.messages, ("assistant", reply)), item.task)


def _nats(
    subject: Subject, examples: Sequence[Example], options: Options, advance: Advance
) -> np.ndarray:
    def track(batches: Iterable, total: int) -> Iterable:
        for done, batch in enumerate(batches, 1):
            yield batch
            advance("likelihoods", done, total)

    found = score_replies(
        *subject[:3],
        examples,
        subject.mesh,
        max_length=options.max_length,
        rows_per_batch=options.batch_size,
        track=track,
    )
    return found.nats_N


def _too_long(number: int) -> str:
    return f"{number} too long" if number else ""


def _references(task, items, subject, options, records, advance) -> Score:
    having = [i for i, item in enumerate(items) if item.reference]
    examples = [_conversation(items[i], items[i].reference) for i in having]
    nats_N = _nats(subject, examples, options, advance)
    bytes_N = np.array([len(items[i].reference.encode()) for i in having])
    for i, nats in zip(having, nats_N, strict=True):
        records[i]["reference_nats"] = float(nats)
    known_N = np.isfinite(nats_N)
    estimate = bits_per_byte(nats_N[known_N], bytes_N[known_N])
    note = _too_long(int((~known_N).sum()))
    return Score(task, "bits per byte", estimate, len(having), note=note)


def _choices(task, items, subject, options, records, advance) -> list[Score]:
    examples = [_conversation(item, c) for item in items for c in item.choices]
    nats = iter(_nats(subject, examples, options, advance).tolist())
    known = []
    for item, record in zip(items, records, strict=True):
        record["choices"], record["gold"] = list(item.choices), item.gold
        record["nats"] = [next(nats) for _ in item.choices]
        if all(map(math.isfinite, record["nats"])):
            known.append((item, record["nats"]))
    found = choice_accuracy(
        [[-n for n in one] for _, one in known],
        [[len(c.encode()) for c in item.choices] for item, _ in known],
        [item.gold for item, _ in known],
    )
    chance, note = chance_level(items), _too_long(len(items) - len(known))
    return [
        Score(task, metric, estimate, len(items), chance, note)
        for metric, estimate in (("accuracy", found.acc), ("by byte", found.acc_norm))
    ]


def _replies(task, items, subject, options, execution, records, advance) -> list[Score]:
    """pass@k; with one reply to each item that is the accuracy."""
    replies = answer(items, subject, options, advance)
    texts = [None if one is None else [r.text for r in one] for one in replies]
    judged = judge(items, texts, execution, progress=partial(advance, "programs"))
    for record, one, verdicts in zip(records, replies, judged, strict=True):
        if one is not None and verdicts is not None:
            record["replies"] = [
                {"text": r.text, "cut": r.cut} | dataclasses.asdict(v)
                for r, v in zip(one, verdicts, strict=True)
            ]
    counts = [count_correct(one) for one in judged if one is not None]
    ns = [n for n, _ in counts if n]
    correct = [c for n, c in counts if n]
    unanswered = sum(one is None for one in replies)
    notes = [_cut(replies, options), f"{unanswered} without" if unanswered else ""]
    if len(ns) < len(counts):  # programs, and no sandbox
        notes.append(execution.reason)
    note = "; ".join(filter(None, notes))
    chance = chance_level(items, execution)  # k equal replies are as right as one
    named = options.num_samples > 1 or all(item.kind == "program" for item in items)
    return [
        Score(
            task,
            f"pass@{k}" if named else "accuracy",
            _pass_at(ns, correct, k),
            len(items),
            chance,
            note,
        )
        for k in options.ks
    ]


def _pass_at(ns: Sequence[int], correct: Sequence[int], k: int) -> Estimate:
    if k == 1 and all(n == 1 for n in ns):
        return accuracy(correct)  # whose interval has a width at 0 too
    return mean_pass_at_k(ns, correct, k)


def answer(
    items: Sequence[Item],
    subject: Subject,
    options: Options,
    advance: Advance = lambda what, done, total: None,
) -> list[list[Reply] | None]:
    """`generate_replies` to the conversations of items."""
    answered = 0

    def more(number: int) -> None:
        nonlocal answered
        answered += number
        advance("replies", answered, len(items))

    return generate_replies(
        *subject[:3],
        [item.messages for item in items],
        max_new_tokens=options.max_new_tokens,
        num_samples=options.num_samples,
        sampling=options.sampling,
        seed=options.seed,
        batch_size=options.batch_size,
        max_length=options.max_length,
        seconds=options.seconds,
        advance=more,
    )


def count_correct(judgements: Sequence[Judgement]) -> tuple[int, int]:
    """How many were judged, and how many of them are right."""
    judged = [one.correct for one in judgements if one.correct is not None]
    return len(judged), sum(judged)


def _cut(replies: Sequence[Sequence[Reply] | None], options: Options) -> str:
    found = [reply for one in replies if one is not None for reply in one]
    cut = sum(reply.cut for reply in found)
    return f"{cut} of {len(found)} cut at {options.max_new_tokens}" if cut else ""
