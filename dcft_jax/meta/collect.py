"""Collects experience: populations of small models in many worlds, into a store.

A world is a base model, some abilities and a budget. Every task is embedded with the
base, a population is trained from it on as many mixtures, and each model is measured on
every task. Whatever is interrupted continues where it was; a world that is in the store
is not computed again.
"""

import dataclasses
import datetime
import functools
import importlib.metadata
import io
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

from dcft_jax.data import Example, Rows, Tokenizer, encode_examples, pack_examples
from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.data.sentencepiece_tokenizer import cached_tokenizer
from dcft_jax.meta import families
from dcft_jax.meta.embed import Measured, make_features, measure, pack_halves
from dcft_jax.meta.experience import (
    Outcome,
    Record,
    add_embedding,
    add_run,
    embedded_tasks,
    open_store,
)
from dcft_jax.meta.interpolate import interpolate
from dcft_jax.meta.population import (
    Population,
    Results,
    make_bank,
    make_plan,
    make_population,
    score,
    train_population,
)
from dcft_jax.meta.proxy import proxy_model
from dcft_jax.meta.worlds import Settings, World, draw_mixtures, draw_world
from dcft_jax.models import ModelConfig, init

BASE_EXAMPLES = 200  # of each family, for the tokenizer and the bases
BASE_SEED = 1  # whose train examples are not those of the abilities
BATCH = 16  # rows of all models evaluated at a time
_make_population = functools.lru_cache(make_population)


class Lab(NamedTuple):
    """What all worlds share."""

    settings: Settings
    folder: Path
    tokenizer: Tokenizer
    model: ModelConfig
    population: Population
    support: dict[str, tuple[Rows, Rows]]
    test: dict[str, Rows]


def collect(
    settings: Settings,
    store_path: str | os.PathLike,
    worlds: Sequence[int],
    work_dir: str | os.PathLike | None = None,
    console: Console | None = None,
) -> None:
    """Adds the worlds of these indices to the store, unless they are there.

    Args:
      settings: what is drawn and trained.
      store_path: see `open_store`.
      worlds: indices; several processes may take different ones.
      work_dir: for bases, tokenizers and states of what is being trained; None: next to
        the store.
      console: where progress is shown.

    Raises:
      ValueError: a store or a state is another's, or a family cannot fill its splits.
      ImportError: reasoning-gym is not installed.
    """
    folder = Path(work_dir or f"{store_path}.work") / settings.identity
    store = open_store(store_path)
    try:
        todo = [i for i in worlds if not _is_done(store, settings, i)]
        columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            skipped = len(worlds) - len(todo)
            if skipped:
                progress.console.print(f"{skipped} worlds are in the store already")
            if not todo:
                return
            total = len(todo) * settings.training.steps
            bar = progress.add_task("steps of populations", total=total)
            lab, started_s = make_lab(settings, folder), time.monotonic()
            for number, index in enumerate(todo, 1):
                world = draw_world(settings, index)
                collect_world(lab, store, world, lambda n: progress.advance(bar, n))
                each_s = (time.monotonic() - started_s) / number
                progress.console.print(
                    f"world {index}: {', '.join(world.names)}; {each_s:.0f} s a world, "
                    f"{(len(todo) - number) * each_s / 60:.1f} min left",
                    highlight=False,
                )
    finally:
        store.close()


def make_lab(settings: Settings, folder: Path) -> Lab:
    texts = [
        text
        for task in settings.families
        for example in families.examples(task, "train", BASE_EXAMPLES, BASE_SEED)
        for _, text in example.messages
    ]
    tokenizer = cached_tokenizer(texts, settings.vocab_size, folder)
    model = proxy_model(tokenizer.vocab_size, settings.width, settings.num_layers)
    support, test = {}, {}
    for task in settings.tasks:
        drawn = _fitting(task, "support", settings.support, tokenizer, settings)
        support[task] = pack_halves(drawn, tokenizer, settings.seq_len)
        drawn = _fitting(task, "test", settings.test, tokenizer, settings)
        test[task] = pack_examples(drawn, tokenizer, settings.seq_len)
    population = _make_population(model, settings.training, settings.max_predicted)
    return Lab(settings, folder, tokenizer, model, population, support, test)


def _fitting(
    task: str, split: str, count: int, tokenizer: Tokenizer, settings: Settings
) -> list[Example]:
    """Those of the examples that are no longer than a row, most of them."""
    drawn = families.examples(task, split, count, settings.seed)
    encoded = encode_examples(drawn, tokenizer)
    kept = [
        example
        for example, (tokens, _) in zip(drawn, encoded, strict=True)
        if len(tokens) <= settings.seq_len
    ]
    if 2 * len(kept) < count:
        raise ValueError(
            f"task {task!r}: only {len(kept)} of {count} examples fit into "
            f"seq_len={settings.seq_len}; raise it, or leave the task out"
        )
    return kept


def world_name(settings: Settings, index: int, step: int) -> str:
    return f"{settings.identity[:8]}-{index:04d}@{step}"


def _stops(settings: Settings) -> list[int]:
    return sorted({*settings.training.stops, settings.training.steps})


def _is_done(store: sqlite3.Connection, settings: Settings, index: int) -> bool:
    """The embeddings of the last budget are added last."""
    last = world_name(settings, index, settings.training.steps)
    tasks = _tasks(settings, draw_world(settings, index))
    return set(embedded_tasks(store, last)) == set(tasks)


def _tasks(settings: Settings, world: World) -> list[str]:
    """The joint abilities are tasks of their own."""
    joint = [name for name in world.names if name not in settings.tasks]
    return [*settings.tasks, *joint]


def collect_world(lab: Lab, store: sqlite3.Connection, world: World, advance) -> None:
    """Trains one world and adds it to the store."""
    settings = lab.settings
    base = make_base(lab, world.base)
    rows = [
        _pack_ability(lab, families_, count, "train")
        for families_, count in zip(world.abilities, world.examples_K, strict=True)
    ]
    size_K = [len(one) for one in rows]
    weights_NK, seed_N = draw_mixtures(settings, world, size_K)
    bank = make_bank(rows, 2 ** int(np.ceil(np.log2(sum(size_K)))))
    plan = make_plan(weights_NK, seed_N.tolist(), rows, settings.training)
    tests = list(lab.test.values())
    before = score(lab.population, jax.tree.map(lambda x: x[None], base), tests, BATCH)
    state_path = lab.folder / f"world-{world.index:04d}.npz"
    trained = train_population(
        lab.population,
        base,
        bank,
        plan,
        settings.training,
        lambda params_N: score(lab.population, params_N, tests, BATCH),
        state_path,
        advance=advance,
    )
    about = (weights_NK, seed_N)
    for step, after in trained.results.items():
        _add_models(lab, store, world, step, "population", about, before, after)
    if settings.interpolate:
        vertices = jax.tree.map(lambda x: x[: len(rows)], trained.params)
        mixed = interpolate(base, vertices, weights_NK)
        after, step = (
            score(lab.population, mixed, tests, BATCH),
            settings.training.steps,
        )
        _add_models(lab, store, world, step, "interpolated", about, before, after)
    _add_embeddings(lab, store, world, base, size_K)
    state_path.unlink()


def make_base(lab: Lab, number: int) -> Any:
    """Trained briefly on all families alike, once."""
    settings = lab.settings
    path = lab.folder / f"base-{number}.npz"
    drawn = init(lab.model, jax.random.key(settings.seed + number))
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            leaves = [file[str(i)] for i in range(len(file.files))]
        return jax.tree.unflatten(jax.tree.structure(drawn), leaves)
    training = dataclasses.replace(
        settings.training,
        steps=settings.base_steps[number],
        rows=settings.base_rows,
        stops=(),
    )
    rows = [
        pack_examples(
            families.examples(task, "train", BASE_EXAMPLES, BASE_SEED),
            lab.tokenizer,
            settings.seq_len,
        )
        for task in settings.families
    ]
    weights_NK = np.full((1, len(rows)), 1 / len(rows))
    plan = make_plan(weights_NK, [number], rows, training)
    trained = train_population(
        *(lab.population, drawn, make_bank(rows), plan, training, lambda _: {}),
        state_path=lab.folder / f"base-{number}-state.npz",
        devices=jax.devices()[:1],
    )
    base = jax.tree.map(lambda x: np.asarray(x[0]), trained.params)
    buffer = io.BytesIO()
    np.savez(buffer, **{str(i): x for i, x in enumerate(jax.tree.leaves(base))})
    atomic_write(path, buffer.getvalue())
    return base


def _pack_ability(lab: Lab, names: Sequence[str], count: int, split: str) -> Rows:
    """The examples are shared out evenly."""
    drawn = [
        example
        for number, name in enumerate(names)
        for example in _fitting(
            name,
            split,
            max((count + number) // len(names), 1),
            lab.tokenizer,
            lab.settings,
        )
    ]
    return pack_examples(drawn, lab.tokenizer, lab.settings.seq_len)


def _add_models(lab, store, world: World, step: int, source, about, before, after):
    settings = lab.settings
    count = sum(x.size for x in jax.tree.leaves(_shapes(lab.model)))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    for n, (weights_K, seed) in enumerate(zip(*about, strict=True)):
        record = Record(
            world=world_name(settings, world.index, step),
            source=source,
            abilities=world.names,
            weights_K=tuple(np.round(weights_K, 9).tolist()),
            budget=step * settings.training.rows * settings.seq_len,
            parameters=count,
            seed=int(seed),
            outcomes=_outcomes(lab, world, n, before, after),
            config_hash=settings.identity,
            versions=_versions(),
            created=now,
        )
        add_run(store, record)


def _shapes(model: ModelConfig) -> Any:
    return jax.eval_shape(functools.partial(init, model), jax.random.key(0))


def _versions() -> dict[str, str]:
    names = ("jax", "numpy", "optax", "reasoning-gym", "sentencepiece")
    return {name: importlib.metadata.version(name) for name in names}


def _outcomes(
    lab: Lab, world: World, n: int, before: Results, after: Results
) -> tuple[Outcome, ...]:
    at = {task: index for index, task in enumerate(lab.test)}
    found = []
    for name in _tasks(lab.settings, world):
        index = [at[task] for task in name.split("+")]
        count_T = after["count_T"][index]
        share_T = count_T / count_T.sum()
        values = [
            float(share_T @ before["loss_NT"][0, index]),
            float(share_T @ after["loss_NT"][n, index]),
            float(before["accuracy_NT"][0, index].mean()),
            float(after["accuracy_NT"][n, index].mean()),
        ]
        kind = families.category(name.split("+")[0])
        rounded = (round(value, 6) for value in values)
        found.append(Outcome(name, kind, *rounded, int(count_T.sum())))
    return tuple(found)


def _add_embeddings(lab: Lab, store, world: World, base: Any, size_K) -> None:
    settings = lab.settings
    K, tasks = len(size_K), _tasks(settings, world)
    groups = [
        pack_halves(_described(lab, names, "mix_val"), lab.tokenizer, settings.seq_len)
        for names in world.abilities
    ]
    for name in tasks:
        if name in lab.support:
            groups.append(lab.support[name])
        else:
            drawn = _described(lab, name.split("+"), "support")
            groups.append(pack_halves(drawn, lab.tokenizer, settings.seq_len))
    measured: Measured = measure(lab.model, base, groups, settings.max_predicted)
    count = sum(x.size for x in jax.tree.leaves(base))
    for step in _stops(settings):
        budget = step * settings.training.rows * settings.seq_len
        for number, name in enumerate(tasks):
            features = make_features(
                *(measured, K + number, range(K), np.array(size_K)),
                *(budget, count, settings.seq_len),
            )
            add_embedding(
                store, world_name(settings, world.index, step), name, features
            )


def _described(lab: Lab, names: Sequence[str], split: str) -> list[Example]:
    """`settings.support` examples, as many of each family."""
    each = lab.settings.support // len(names)
    return [
        example
        for name in names
        for example in _fitting(name, split, each, lab.tokenizer, lab.settings)
    ]
