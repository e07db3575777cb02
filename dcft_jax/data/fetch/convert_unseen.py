"""Documents of BIG-bench and OpenAI evals -> rows of `dcft_jax.evaluation.items`.

`metadata.instance` is the prompt without the definition of the task, which is as long
as a small model's whole row.
"""

import json
from pathlib import PurePosixPath

from dcft_jax.data.fetch.task import Document, Documents, Row

MOST = 500  # documents of a file: some have thousands of one template


def bigbench_docs(content: bytes, place: str) -> Documents:
    """The examples of a `task.json`, at most `MOST` of them, evenly spread."""
    task = json.loads(content)
    texts = {
        "definition": task.get("task_prefix", ""),
        "before": task.get("example_input_prefix", ""),
        "after": task.get("example_output_prefix", ""),
    }
    examples = task["examples"]
    count = min(len(examples), MOST)
    for number in range(count):
        at = number * len(examples) // count
        yield f"{place}, example {at}", {**texts, **examples[at], "at": at}


def bigbench(doc: Document, member: str) -> Row | None:
    """Srivastava et al. 2022, arXiv:2206.04615.

    With scored choices the best of them counts, and an example in which there is not
    one is left out. A target out of several, or a number, which is graded by its
    relative error there, is a reference and not judged.
    """
    name = PurePosixPath(member).parent.name
    instance = f"{doc['before']}{doc['input']}{doc['after']}".strip()
    definition = doc["definition"].strip()
    row: Row = {
        "id": f"{name}/{doc['at']}",
        "prompt": f"{definition}\n\n{instance}" if definition else instance,
        "metadata": {"instance": instance},
    }
    if "target_scores" in doc:
        scores: dict[str, float] = doc["target_scores"]
        best = [choice for choice, x in scores.items() if x == max(scores.values())]
        if len(best) > 1:
            return None
        choices = [*scores]
        judged = {"kind": "choice", "choices": choices, "gold": choices.index(best[0])}
        return row | judged | {"reference": best[0]}
    target = doc["target"]
    targets = [target] if isinstance(target, str) else target
    reference = targets[0].strip()
    if len(targets) > 1 or _is_number(reference):
        return row | {"kind": "reference", "reference": reference}
    return row | {"kind": "exact", "reference": reference, "gold": reference}


def open_ended(doc: Document, member: str) -> Row | None:
    """As `bigbench`, of a task with many right replies: none is judged."""
    row = bigbench(doc, member)
    return row and _not_judged(row)


def _not_judged(row: Row) -> Row:
    return {k: x for k, x in row.items() if k != "gold"} | {"kind": "reference"}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def eval_docs(content: bytes, place: str) -> Documents:
    """JSON Lines."""
    for number, line in enumerate(content.splitlines(), 1):
        yield f"{place}:{number}", {**json.loads(line), "at": number}


def openai_eval(doc: Document, member: str) -> Row:
    """Of the registry of https://github.com/openai/evals: exact match.

    The last turn is the question, whoever says it: some files have system turns only.
    """
    *history, last = doc["input"]
    prompt, ideal = last["content"].strip(), doc["ideal"].strip()
    return {
        "id": f"{PurePosixPath(member).parent.name}/{doc['at']}",
        "prompt": prompt,
        "history": [[turn["role"], turn["content"]] for turn in history],
        "kind": "exact",
        "reference": ideal,
        "gold": ideal,
        "metadata": {"instance": prompt},
    }


def query(doc: Document, member: str) -> Row:
    """As `openai_eval`; other queries would be right as well, so none is judged."""
    return _not_judged(openai_eval(doc, member))
