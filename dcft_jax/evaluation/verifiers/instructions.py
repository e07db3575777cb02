"""Whether a reply follows instructions that a program can check (IFEval)."""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from dcft_jax.evaluation.verifiers.instruction_checks import CHECKS, RELATIONS

Instruction = tuple[str, Mapping[str, Any]]  # name and arguments


@dataclasses.dataclass(frozen=True)
class InstructionVerdict:
    """One bool per instruction, in their order.

    Attributes:
      strict: the reply follows it as it is.
      loose: one of the variants of the reply follows it, see `loose_variants`.
    """

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]

    @property
    def follow_all(self) -> bool:
        """Prompt-level strict accuracy counts these."""
        return all(self.strict)

    @property
    def follow_all_loosely(self) -> bool:
        """Prompt-level loose accuracy counts these."""
        return all(self.loose)


def verify_instructions(
    reply: str, instructions: Sequence[Instruction]
) -> InstructionVerdict:
    """Strict and loose verdicts of Zhou et al. 2023, arXiv:2311.07911, section 3.

    An empty reply follows nothing, strictly or loosely. For deviations from the
    authors' program see `instruction_checks`.

    Args:
      reply: what the model wrote.
      instructions: names from `CHECKS` with the arguments of IFEval's `kwargs`;
        arguments that are None count as absent, as in its published table.

    Raises:
      ValueError: there is no instruction, or one is malformed (`check_instruction`).
    """
    if not instructions:
        raise ValueError(
            "instructions is empty: every reply would follow all of them; leave out "
            "prompts without instructions"
        )
    given = [(name, check_instruction(name, kwargs)) for name, kwargs in instructions]
    variants = loose_variants(reply)

    def followed(texts: Sequence[str]) -> tuple[bool, ...]:
        filled = [text for text in texts if text.strip()]
        return tuple(
            any(CHECKS[name](text, **kwargs) for text in filled)
            for name, kwargs in given
        )

    return InstructionVerdict(followed([reply]), followed(variants))


def loose_variants(reply: str) -> tuple[str, ...]:
    """The reply, without first line, last line or both; each with and without `*`.

    Dropping lines forgives an introduction and a closing remark, dropping asterisks
    forgives Markdown emphasis.
    """
    lines = reply.split("\n")
    cut = [lines[1:], lines[:-1], lines[1:-1]]
    texts = [reply, *("\n".join(part).strip() for part in cut)]
    return (*texts, *(text.replace("*", "") for text in texts))


def check_instruction(name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an instruction that are not None, if they are what it takes.

    Raises:
      ValueError: the instruction or an argument is unknown, missing or malformed.
    """
    if name not in CHECKS:
        raise ValueError(
            f"unknown instruction {name!r}; there are {', '.join(sorted(CHECKS))}"
        )
    given = {key: value for key, value in kwargs.items() if value is not None}
    wanted = list(inspect.signature(CHECKS[name]).parameters)[1:]
    if set(given) != set(wanted):
        raise ValueError(
            f"{name} takes {', '.join(wanted) or 'no arguments'}, "
            f"not {', '.join(sorted(given)) or 'none'}"
        )
    for key, value in given.items():
        if problem := _problem(key, value):
            raise ValueError(f"{name}: {key}={value!r} must be {problem}")
    return given


def _problem(key: str, value: Any) -> str | None:
    """What a value of this argument has to be, if it is not."""
    if key in ("keywords", "forbidden_words"):
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        fine = listed and value and all(isinstance(v, str) and v.strip() for v in value)
        return None if fine else "a list of words that are not empty"
    if key.endswith("relation"):
        return None if value in RELATIONS else f"one of {', '.join(RELATIONS)}"
    if key == "letter":
        fine = isinstance(value, str) and len(value) == 1 and value.strip()
        return None if fine else "one character"
    if key.startswith("num_") or key.endswith("frequency") or key == "nth_paragraph":
        least = 1 if key == "nth_paragraph" else 0
        fine = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return None if fine else f"a whole number of at least {least}"
    return None if isinstance(value, str) and value.strip() else "a text"
