"""The worlds, base models and held-out tasks of `experiments.meta_initialisation`.

Everything is a file that the trainer reads as it reads a user's: a pretrained folder, a
JSONL file for each ability, a support set for each task.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dcft_jax.data import Example
from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.meta import EXPERIENCE, cases, merge, open_store
from dcft_jax.meta.baselines import mean_of_best
from dcft_jax.meta.families import TEST_TASKS
from dcft_jax.meta.lab import (
    Lab,
    ability_examples,
    fitting,
    make_base,
    make_lab,
    pack_ability,
)
from dcft_jax.meta.regret import solve
from dcft_jax.meta.worlds import Settings, World, draw_mixtures, draw_world
from dcft_jax.models import save_pretrained

FIRST = 16  # the worlds before may be in the experience of the package
MEAN, TRIED = "mean.json", "tried.json"  # in the folder of a seed
TRIED_MIXTURES, SMALLEST = 8, 1e-4  # weights of a config are positive


def world_of(settings: Settings, seed: int) -> World:
    """Of a seed: its own world, with as many abilities as the shipped network knows."""
    fewest = min(3, settings.max_abilities)
    drawn = (draw_world(settings, FIRST + i) for i in range(1000 * (seed + 1)))
    fitting_worlds = (world for world in drawn if len(world.names) >= fewest)
    for _ in range(seed):
        next(fitting_worlds)
    return next(fitting_worlds)


def base_path(folder: Path, world: World) -> Path:
    return folder / "bases" / f"base-{world.base}"


def ability_path(folder: Path, seed: int, name: str) -> Path:
    return folder / f"seed-{seed}" / f"{name}.jsonl"


def task_path(folder: Path, task: str, split: str) -> Path:
    return folder / split / f"{task}.jsonl"


def choices_path(folder: Path, seed: int, task: str) -> Path:
    """Weights of every method that chooses for the task."""
    return folder / f"seed-{seed}" / "choices" / f"{task}.json"


def prepare(
    settings: Settings, seeds: Sequence[int], tasks: Sequence[str], folder: Path
) -> None:
    """Makes what is not there yet: some minutes at the first call.

    Raises:
      ValueError: a task is an ability of a seed's world, or a family cannot fill its
        splits.
      ImportError: reasoning-gym is not installed.
    """
    worlds = {seed: world_of(settings, seed) for seed in seeds}
    for seed, world in worlds.items():
        own = {name for names in world.abilities for name in names} & set(tasks)
        if own:
            raise ValueError(
                f"--tasks {', '.join(sorted(own))}: abilities of the world of seed "
                f"{seed}, so no new tasks there; leave the tasks or the seed out"
            )
    wanted = [
        task_path(folder, t, split) for t in tasks for split in ("support", "test")
    ]
    wanted += [base_path(folder, world) / "config.json" for world in worlds.values()]
    wanted += [
        folder / f"seed-{seed}" / name for seed in seeds for name in (MEAN, TRIED)
    ]
    if all(path.is_file() for path in wanted):
        return
    lab = make_lab(settings, folder / "lab")
    for task in tasks:
        write_task(lab, task, folder)
    for seed, world in worlds.items():
        write_base(lab, world, folder)
        write_world(lab, seed, world, folder)


def write_task(lab: Lab, task: str, folder: Path) -> None:
    """The examples that describe it, and four times as many that it is tested on."""
    count = lab.settings.support
    for split, number in (("support", count), ("test", 4 * count)):
        drawn = fitting(task, split, number, lab.tokenizer, lab.settings)
        write_examples(task_path(folder, task, split), drawn)


def write_base(lab: Lab, world: World, folder: Path) -> None:
    """The base model that the worlds of a collection start from, as HuggingFace has
    them; config.json comes last."""
    path = base_path(folder, world)
    if (path / "config.json").is_file():
        return
    tokenizer = lab.tokenizer
    ids = dict(bos_token_id=tokenizer.bos_id, pad_token_id=tokenizer.pad_id)
    ids["eos_token_id"] = tokenizer.chat.end_id
    tokenizer.save(path)
    for half in path.glob("*.safetensors"):  # of a call that was stopped
        half.unlink()
    params = make_base(lab, world.base)
    save_pretrained(lab.model, params, path, max_length=lab.settings.seq_len, extra=ids)


def write_world(lab: Lab, seed: int, world: World, folder: Path) -> None:
    """Its abilities, with what is held out of them, and mixtures, at last."""
    size_K = []
    for name, names, count in zip(
        world.names, world.abilities, world.examples_K, strict=True
    ):
        held_out = lab.settings.support + lab.settings.test
        drawn = ability_examples(lab, names, count + held_out)
        write_examples(ability_path(folder, seed, name), drawn)
        size_K.append(len(pack_ability(lab, names, count)))
    weights_K = mean_weights(world.names, np.array(size_K, np.float64))
    tried_NK = mixtures_to_try(lab.settings, world, size_K)
    for name, weights in ((MEAN, weights_K), (TRIED, tried_NK)):
        atomic_write(folder / f"seed-{seed}" / name, json.dumps(weights.tolist()))


def mixtures_to_try(
    settings: Settings, world: World, size_K: Sequence[int]
) -> np.ndarray:
    """The first of those that a collection tries, [N, K]: each ability (all but) alone,
    proportional, Dirichlet draws. The uniform one has an arm of its own.
    """
    weights_NK, _ = draw_mixtures(settings, world, size_K)
    tried_NK = np.delete(weights_NK, len(size_K), axis=0)[:TRIED_MIXTURES]
    share = SMALLEST * len(size_K)
    return (1 - share) * tried_NK + SMALLEST


def mean_weights(names: Sequence[str], size_K: np.ndarray) -> np.ndarray:
    """`baselines.mean_of_best` of what the network in the package was fitted on."""
    store = open_store(":memory:")
    merge(store, [EXPERIENCE])
    known = [
        case
        for case in cases(store)
        # Others say nothing of these abilities.
        if case.task not in TEST_TASKS and set(case.abilities) & set(names)
    ]
    store.close()
    return mean_of_best(solve(known) if known else [], names, size_K / size_K.sum())


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    rows = [
        {"prompt": one.messages[0][1], "response": one.messages[-1][1]}
        for one in examples
    ]
    atomic_write(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_examples(path: Path) -> list[Example]:
    """What `write_examples` wrote."""
    found = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        messages = (("user", row["prompt"]), ("assistant", row["response"]))
        found.append(Example(messages, path.stem, single_reference=True))
    return found
