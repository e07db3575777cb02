"""Whether replies are right: the verifier that the kind of an item asks for."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

from dcft_jax.evaluation.items import Item
from dcft_jax.evaluation.sandbox import Choice, Limits, run_programs
from dcft_jax.evaluation.statistics import chance_of_choices
from dcft_jax.evaluation.verifiers import (
    verify_answer,
    verify_instructions,
    verify_text,
)
from dcft_jax.evaluation.verifiers.code import (
    Program,
    complete_code,
    mbpp_program,
    syntax_error,
)

NOT_EXECUTED = Choice(None, "code is not executed: it was not asked for")


@dataclasses.dataclass(frozen=True)
class Judgement:
    correct: bool | None  # None: not judged
    reason: str = ""  # why it is wrong, or was not judged


def judge(
    items: Sequence[Item],
    replies: Sequence[Sequence[str] | None],
    execution: Choice = NOT_EXECUTED,
    *,
    limits: Limits | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Judgement] | None]:
    """A judgement of every reply; None where there are no replies.

    Items of kind "choice" have no replies and are refused.

    Args:
      replies: texts, any number for each item.
      execution: the sandbox that programs run in; without one they are not judged.
      limits, workers, progress: see `run_programs`.

    Raises:
      ValueError: an item that is not judged by a reply.
      RuntimeError: the sandbox stopped working.
    """
    found: list[list[Judgement] | None] = []
    programs: list[tuple[int, int, Program]] = []
    for i, (item, texts) in enumerate(zip(items, replies, strict=True)):
        if texts is None:
            found.append(None)
            continue
        judgements = []
        for j, text in enumerate(texts):
            if item.kind == "program":
                program = program_of(item, text)
                judgement = _before_running(program, execution)
                if judgement is None:
                    programs.append((i, j, program))
                    judgement = Judgement(None)
            else:
                judgement = _judge_text(item, text)
            judgements.append(judgement)
        found.append(judgements)
    if not programs or execution.sandbox is None:
        return found
    outcomes = run_programs(
        [program for _, _, program in programs],
        sandbox=execution.sandbox,
        limits=limits,
        workers=workers,
        progress=progress,
    )
    for (i, j, _), outcome in zip(programs, outcomes, strict=True):
        judgements = found[i]
        assert judgements is not None
        judgements[j] = Judgement(outcome.status == "passed", outcome.error)
    return found


def program_of(item: Item, reply: str) -> Program:
    """What runs to judge a reply with code."""
    program = mbpp_program(reply, item.tests, item.setup)
    if prefix := item.metadata.get("code_prefix"):
        program = program._replace(code=complete_code(prefix, reply))
    return program


def _before_running(program: Program, execution: Choice) -> Judgement | None:
    if execution.sandbox is None:
        return Judgement(None, execution.reason)
    error = syntax_error(program.code)
    return None if error is None else Judgement(False, error)


def _judge_text(item: Item, text: str) -> Judgement:
    gold = str(item.gold)
    if item.kind == "verbatim":
        same = text.strip() == gold.strip()
        return Judgement(same, "" if same else "another text")
    if item.kind == "instructions":
        followed = verify_instructions(text, item.instructions)
        pairs = zip(item.instructions, followed.strict, strict=True)
        broken = [name for (name, _), good in pairs if not good]
        return Judgement(not broken, ", ".join(broken))
    if item.kind not in ("answer", "exact"):
        raise ValueError(f"{item.id}: kind={item.kind!r} is not judged by a reply")
    verify = verify_answer if item.kind == "answer" else verify_text
    verdict = verify(text, gold)
    return Judgement(verdict.correct, "" if verdict.correct else verdict.reason)


def chance_level(items: Sequence[Item], execution: Choice = NOT_EXECUTED) -> float:
    """What is right without understanding, to be read next to an accuracy.

    Of choices: guessing. Of replies: always giving the most frequent reply, judged as
    any other, over the items that can be judged here; nan if there are none.
    """
    if items[0].kind == "choice":
        return chance_of_choices([len(item.choices) for item in items])
    usual = [item.reference if item.gold is None else str(item.gold) for item in items]
    constant = Counter(usual).most_common(1)[0][0]
    judged = judge(items, [[constant]] * len(items), execution)
    right = [one[0].correct for one in judged if one is not None]
    right = [correct for correct in right if correct is not None]
    return sum(right) / len(right) if right else float("nan")
