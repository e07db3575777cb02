"""Small archives with the layout of those of the suite `unseen`."""

import io
import json
import tarfile
from pathlib import Path

from dcft_jax.data.archive import Archive
from dcft_jax.data.fetch.task import Task
from dcft_jax.data.fetch.unseen import BIG_BENCH, EVALS, UNSEEN
from tests.wheels import sha256, write_wheel

DATES = {
    "examples": [
        {"input": "It was May 1. Today?", "target_scores": {"5/1": 0, "5/2": 1}},
        {"input": "It is unknown. Today?", "target_scores": {"5/1": 0, "5/2": 0}},
    ]
}
LISTS = {
    "task_prefix": "Apply a function.\n",
    "example_input_prefix": "",
    "example_output_prefix": "\nA: ",
    "examples": [{"input": f"Q: [{n}]", "target": f"[{n}]"} for n in range(1200)],
}
FACTS = {
    "task_prefix": "Definition: Combine the facts.",
    "examples": [
        {"input": "Fact 1: a. \nFact 2: b.", "target": ["ab.", "ba."]},
        {"input": "Fact 1: c. \nFact 2: d.", "target": ["cd."]},
    ],
}
REGEX = [
    {
        "input": [
            {"role": "system", "content": "Help."},
            {"role": "user", "content": f"does {n} match? "},
        ],
        "ideal": "Yes." if n % 2 else "No.",
    }
    for n in range(120)
]
NAMES = ("date_understanding", "list_functions", "qasc_combined_fact", "regex_match")
ROWS = dict(zip(NAMES, (1, 500, 2, 120), strict=True))


def write_sdist(folder: Path, members: dict[str, bytes]) -> Archive:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny-bench-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return Archive("tiny-bench", "1.0", path.name, sha256(path))


def small_tasks(folder: Path) -> list[Task]:
    """Four of the tasks, with the first file of each only."""
    chosen = {task.name: task for task in UNSEEN if task.name in NAMES}
    contents = dict(zip(NAMES, (DATES, LISTS, FACTS), strict=False))
    sdist = write_sdist(
        folder,
        {
            chosen[name].members[0]: json.dumps(content).encode()
            for name, content in contents.items()
        },
    )
    lines = "".join(json.dumps(row) + "\n" for row in REGEX)
    wheel = write_wheel(folder, "tiny-evals", {chosen["regex_match"].members[0]: lines})
    archives = {BIG_BENCH: sdist, EVALS: wheel}
    return [
        task._replace(
            archive=archives[task.archive], members=task.members[:1], rows=ROWS[name]
        )
        for name, task in chosen.items()
    ]
