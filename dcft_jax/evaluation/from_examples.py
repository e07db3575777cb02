"""The held-out examples of an ability as items that a reply can be judged by."""

import re
from collections.abc import Sequence
from typing import Any

from dcft_jax.data import Example
from dcft_jax.evaluation.items import Item

_NUMBER = re.compile(r"-?\d[\d.,/]*")


def items_of(task: str, examples: Sequence[Example]) -> list[Item]:
    """One item for each example that answers a user.

    Code is judged by its tests; a number by its value, also at the end of a worked
    solution; any other single reference by its text. The others, such as
    conversations with many right replies, are of kind "reference": nothing is judged.
    """
    found = []
    for i, example in enumerate(examples):
        if not example.prompt or example.prompt[-1][0] != "user":
            continue
        found.append(
            Item(
                id=f"{task}/{i}",
                task=task,
                prompt=example.prompt[-1][1],
                history=tuple(example.prompt[:-1]),
                reference=example.reply,
                **_judged_by(example),
            )
        )
    return found


def _judged_by(example: Example) -> dict[str, Any]:
    metadata = {"source": example.source}
    if example.tests:
        # The reply is the body of the function whose head is the prompt.
        metadata["code_prefix"] = example.prompt[-1][1]
        return dict(
            kind="program",
            tests=tuple(example.tests),
            entry_point=example.metadata.get("entry_point", ""),
            metadata=metadata,
        )
    answer = str(example.metadata.get("answer", ""))
    if _NUMBER.fullmatch(answer):
        return dict(kind="answer", gold=answer, metadata=metadata)
    if example.single_reference:
        return dict(kind="verbatim", gold=example.reply, metadata=metadata)
    return dict(kind="reference", metadata=metadata)
