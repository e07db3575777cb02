"""Collects experience: populations of small models in many worlds, into a store.

A world is a base model, some abilities and a budget. Every task is embedded with the
base, a population is trained from it on as many mixtures, and each model is measured on
every task. Whatever is interrupted continues where it was; a world that is in the store
is not computed again. Emerging families (`dcft_jax.evaluation.emerging`) are measured
too; they are for testing, and whoever fits leaves them out.
"""

import datetime
import functools
import importlib.metadata
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

from dcft_jax.data import Rows
from dcft_jax.meta import families
from dcft_jax.meta.embed import make_features
from dcft_jax.meta.experience import (
    Outcome,
    Record,
    add_embedding,
    add_run,
    count_models,
    embedded_tasks,
    open_store,
)
from dcft_jax.meta.interpolate import interpolate
from dcft_jax.meta.lab import Lab, describe, make_base, make_lab, pack_ability
from dcft_jax.meta.measure import measure, pack_halves
from dcft_jax.meta.plan import make_bank, make_plan
from dcft_jax.meta.population import Trained, score, train_population
from dcft_jax.meta.population_state import Results
from dcft_jax.meta.specialists import adapter_specialists
from dcft_jax.meta.worlds import Settings, World, draw_mixtures, draw_world
from dcft_jax.models import ModelConfig, init

BATCH = 16  # rows of all models evaluated at a time


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
        todo = [i for i in worlds if _steps_left(store, settings, i)]
        columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            skipped = len(worlds) - len(todo)
            if skipped:
                progress.console.print(f"{skipped} worlds are in the store already")
            if not todo:
                return
            total = sum(_steps_left(store, settings, i) for i in todo)
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


def world_name(settings: Settings, index: int, step: int) -> str:
    return f"{settings.identity[:8]}-{index:04d}@{step}"


def _stops(settings: Settings) -> list[int]:
    return sorted({*settings.training.stops, settings.training.steps})


def _steps_left(store: sqlite3.Connection, settings: Settings, index: int) -> int:
    """To train a population, and specialists."""
    missing = not _has_population(store, settings, index)
    specialists = settings.specialist_rank > 0 and not _has_specialists(
        store, settings, index
    )
    return settings.training.steps * (missing + specialists)


def _has_population(store: sqlite3.Connection, settings: Settings, index: int) -> bool:
    """The embeddings of the last budget are added last."""
    last = world_name(settings, index, settings.training.steps)
    tasks = _tasks(settings, draw_world(settings, index))
    return set(embedded_tasks(store, last)) == set(tasks)


def _has_specialists(store: sqlite3.Connection, settings: Settings, index: int) -> bool:
    """Raises ValueError if there are some of another rank."""
    last, name = world_name(settings, index, settings.training.steps), _lora(settings)
    found = count_models(store, last, "interpolated-lora")
    if found.keys() - {name}:
        raise ValueError(
            f"specialist_rank={settings.specialist_rank}, but world {index} has "
            f"adapters of other settings in the store ({', '.join(found)}); take "
            "another store"
        )
    return found.get(name, 0) == settings.models


def _lora(settings: Settings) -> str:
    """The `config_hash` of records of interpolated adapters."""
    return f"{settings.identity}-rank{settings.specialist_rank}"


def _tasks(settings: Settings, world: World) -> list[str]:
    """The joint abilities are tasks of their own."""
    joint = [name for name in world.names if name not in settings.tasks]
    return [*settings.tasks, *joint]


def collect_world(
    lab: Lab,
    store: sqlite3.Connection,
    world: World,
    advance: Callable[[int], None],
) -> None:
    """Trains what is missing of one world and adds it to the store."""
    rows = world_rows(lab, world)
    if not _has_population(store, lab.settings, world.number):
        _add_population(lab, store, world, rows, advance)
    rank = lab.settings.specialist_rank
    if rank and not _has_specialists(store, lab.settings, world.number):
        base = make_base(lab, world.base)
        path = lab.folder / f"world-{world.number:04d}-rank{rank}.npz"
        specialists = adapter_specialists(lab, base, rows, rank, path, advance)
        _add_interpolated(
            *(lab, store, world, rows, base, specialists),
            *("interpolated-lora", _lora(lab.settings)),
        )


def _add_population(
    lab: Lab, store, world: World, rows: Sequence[Rows], advance: Callable[[int], None]
) -> None:
    settings, base = lab.settings, make_base(lab, world.base)
    size_K = [len(one) for one in rows]
    weights_NK, seed_N = draw_mixtures(settings, world, size_K)
    state_path = lab.folder / f"world-{world.number:04d}.npz"
    trained = train_mixtures(
        lab, store, world, rows, weights_NK, seed_N, state_path, advance
    )
    if settings.interpolate:
        vertices = jax.tree.map(lambda x: x[: len(rows)], trained.params)
        _add_interpolated(lab, store, world, rows, base, vertices, "interpolated")
    _add_embeddings(lab, store, world, base, size_K)
    state_path.unlink(missing_ok=True)


def _add_interpolated(
    lab: Lab,
    store,
    world: World,
    rows: Sequence[Rows],
    base: Any,
    specialists: Any,
    source: str,
    config_hash: str | None = None,
) -> None:
    """Interpolates to the mixtures of the population and measures what that gives."""
    tried = draw_mixtures(lab.settings, world, [len(one) for one in rows])
    tests = list(lab.test.values())
    before = score_base(lab, base)
    mixed = interpolate(base, specialists, tried[0])
    after = score(lab.population, mixed, tests, BATCH)
    step = lab.settings.training.steps
    _add_models(
        lab, store, world, step, source, tried, before, after, config_hash=config_hash
    )


def score_base(lab: Lab, base: Any) -> Results:
    one = jax.tree.map(lambda x: x[None], base)
    return score(lab.population, one, list(lab.test.values()), BATCH)


def world_rows(lab: Lab, world: World) -> list[Rows]:
    """The train rows of every ability."""
    return [
        pack_ability(lab, names, count)
        for names, count in zip(world.abilities, world.examples_K, strict=True)
    ]


def train_mixtures(
    lab: Lab,
    store: sqlite3.Connection,
    world: World,
    rows: Sequence[Rows],
    weights_NK: np.ndarray,
    seed_N: np.ndarray,
    state_path: Path,
    advance: Callable[[int], None],
    source: str = "population",
) -> Trained:
    """Trains a population of the world and adds what came of each model."""
    settings, base = lab.settings, make_base(lab, world.base)
    bank = make_bank(rows, 2 ** int(np.ceil(np.log2(sum(map(len, rows))))))
    plan = make_plan(weights_NK, seed_N.tolist(), rows, settings.training)
    tests, before = list(lab.test.values()), score_base(lab, base)
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
    tried = (weights_NK, seed_N)
    for step, after in trained.results.items():
        _add_models(lab, store, world, step, source, tried, before, after)
    return trained


def _add_models(
    lab: Lab,
    store,
    world: World,
    step: int,
    source: str,
    tried,
    before,
    after,
    config_hash: str | None = None,
) -> None:
    """`tried`: weights_NK and seed_N; `before`, `after`: of the base and the models."""
    settings = lab.settings
    count = sum(x.size for x in jax.tree.leaves(_shapes(lab.model)))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    for n, (weights_K, seed) in enumerate(zip(*tried, strict=True)):
        record = Record(
            world=world_name(settings, world.number, step),
            source=source,
            abilities=world.names,
            weights_K=tuple(np.round(weights_K, 9).tolist()),
            budget=step * settings.training.rows * settings.seq_len,
            parameters=count,
            seed=int(seed),
            outcomes=_outcomes(lab, world, n, before, after),
            config_hash=config_hash or settings.identity,
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
        if not at.keys() >= {*name.split("+")}:
            continue  # `prove` measures only what it trains for
        index = [at[task] for task in name.split("+")]
        count_T = after["count_T"][index]
        share_T = count_T / count_T.sum()
        before_and_after = [
            float(share_T @ before["loss_NT"][0, index]),
            float(share_T @ after["loss_NT"][n, index]),
            float(before["accuracy_NT"][0, index].mean()),
            float(after["accuracy_NT"][n, index].mean()),
        ]
        kind = families.category(name.split("+")[0])
        values = [round(value, 6) for value in before_and_after]
        found.append(Outcome(name, kind, *values, tokens=int(count_T.sum())))
    return tuple(found)


def _add_embeddings(lab: Lab, store, world: World, base: Any, size_K) -> None:
    settings = lab.settings
    K, tasks = len(size_K), _tasks(settings, world)
    groups = [
        pack_halves(describe(lab, names, "mix_val"), lab.tokenizer, settings.seq_len)
        for names in world.abilities
    ]
    for name in tasks:
        if name in lab.support:
            groups.append(lab.support[name])
        else:
            drawn = describe(lab, name.split("+"), "support")
            groups.append(pack_halves(drawn, lab.tokenizer, settings.seq_len))
    measured = measure(lab.model, base, groups, settings.max_predicted)
    count = sum(x.size for x in jax.tree.leaves(base))
    for step in _stops(settings):
        budget = step * settings.training.rows * settings.seq_len
        for number, name in enumerate(tasks):
            features = make_features(
                *(measured, K + number, range(K), np.array(size_K)),
                *(budget, count, settings.seq_len),
            )
            add_embedding(
                store, world_name(settings, world.number, step), name, features
            )
