"""The experience store: which mixtures were trained, and what came of them.

A task is described once per world (`add_embedding`), a trained model is one record with
its outcome on every task (`add_run`). `cases` joins the two. Why it is one SQLite file:
`dcft_jax.meta.store`.
"""

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dcft_jax.meta.case import Case
from dcft_jax.meta.features import Features, check
from dcft_jax.meta.store import (
    SCHEMA_VERSION,
    export,
    insert,
    merge,
    open_store,
    transaction,
)

__all__ = [
    "LEARNT_FROM",
    "PROVED",
    "SCHEMA_VERSION",
    "SOURCES",
    "Outcome",
    "Record",
    "add_embedding",
    "add_run",
    "cases",
    "count_models",
    "embedded_tasks",
    "export",
    "merge",
    "open_store",
    "record_id",
]

SOURCES = ("run", "population", "proof", "interpolated", "interpolated-lora")
LEARNT_FROM = ("run", "population")
PROVED = (*LEARNT_FROM, "proof")  # all that were trained on their mixture


class Outcome(NamedTuple):
    """Of one model on one task; nan where not measured.

    Attributes:
        loss_before, loss: nats per response token of the base and of the model.
        accuracy_before, accuracy: exact match.
        tokens: of the responses, which the losses are means over.
    """

    task: str
    category: str
    loss_before: float
    loss: float
    accuracy_before: float
    accuracy: float
    tokens: int


class Record(NamedTuple):
    """One trained model.

    Attributes:
        world: names base, abilities and budget.
        source: of `SOURCES`: a full run; one of a population of small models; one
            trained on what a method chose (`prove`); or a model whose weights were
            interpolated and not trained, from specialists or from their adapters.
        weights_K: the mixture, averaged over the run.
        weight_path: (step, weights) as they changed; empty if they did not.
        budget: tokens trained on.
        parameters: of the model.
        seed: of the order of the data.
        config_hash: names all other settings.
        versions: of the libraries.
        created: time, ISO 8601; no part of the identity.
    """

    world: str
    source: str
    abilities: tuple[str, ...]
    weights_K: tuple[float, ...]
    budget: int
    parameters: int
    seed: int
    outcomes: tuple[Outcome, ...]
    weight_path: tuple[tuple[int, tuple[float, ...]], ...] = ()
    config_hash: str = ""
    versions: Mapping[str, str] = {}
    created: str = ""


def record_id(record: Record) -> bytes:
    """16 bytes; equal for equal records, whenever they were made."""
    content = json.dumps(record._replace(created="", versions=dict(record.versions)))
    return hashlib.blake2b(content.encode(), digest_size=16).digest()


def add_run(store: sqlite3.Connection, record: Record) -> bytes:
    """Adds a record, unless it is there; returns its identity.

    Raises:
      ValueError: weights off the simplex or of another number than the abilities, no
        outcomes, a task twice, or an unknown source.
    """
    _check(record)
    identity = record_id(record)
    fields = (
        *(identity, record.world, record.source, json.dumps(record.abilities)),
        *(json.dumps(record.weights_K), json.dumps(record.weight_path)),
        *(record.budget, record.parameters, record.seed, record.config_hash),
        *(json.dumps(dict(record.versions), sort_keys=True), record.created),
    )
    with transaction(store):
        insert(store, "models", [fields])
        insert(store, "outcomes", [(identity, *one) for one in record.outcomes])
    return identity


def _check(record: Record) -> None:
    weights_K = np.asarray(record.weights_K, np.float64)
    if record.source not in SOURCES:
        raise ValueError(f"source={record.source!r} must be one of {SOURCES}")
    if weights_K.shape != (len(record.abilities),) or not record.abilities:
        raise ValueError(
            f"weights_K={record.weights_K} must be one for each of the abilities "
            f"{record.abilities}"
        )
    if not (np.all(weights_K >= 0) and abs(weights_K.sum() - 1) <= 1e-3):
        raise ValueError(f"weights_K={record.weights_K} are not on the simplex")
    tasks = [outcome.task for outcome in record.outcomes]
    if not tasks or len(set(tasks)) < len(tasks):
        raise ValueError(f"outcomes of {tasks}: give one or more, each task once")


def add_embedding(
    store: sqlite3.Connection, world: str, task: str, features: Features
) -> None:
    """Adds what is known of a task in a world, unless it is there.

    Raises:
      ValueError: see `features.check`.
    """
    check(features)
    blobs = [np.ascontiguousarray(x, np.float32).tobytes() for x in features]
    with transaction(store):
        row = (world, task, features.num_abilities, *blobs)
        insert(store, "embeddings", [row])


def count_models(store: sqlite3.Connection, world: str, source: str) -> dict[str, int]:
    """How many there are of each `config_hash`."""
    query = (
        "SELECT config_hash, COUNT(*) FROM models WHERE world = ? AND source = ? "
        "GROUP BY config_hash"
    )
    return dict(store.execute(query, (world, source)).fetchall())


def embedded_tasks(store: sqlite3.Connection, world: str) -> list[str]:
    query = "SELECT task FROM embeddings WHERE world = ? ORDER BY task"
    return [task for (task,) in store.execute(query, (world,))]


def cases(
    store: sqlite3.Connection,
    min_models: int = 4,
    sources: Sequence[str] = LEARNT_FROM,
) -> list[Case]:
    """One case for each embedded task of each world, in the order of their names.

    Args:
      min_models: a task with fewer measured models makes no case.
      sources: of the models, see `SOURCES`.

    Raises:
      ValueError: models of one world that differ in their abilities, or an embedding
        of another number of abilities.
    """
    models = _models(store, sources)
    found = []
    query = "SELECT * FROM embeddings ORDER BY world, task"
    measured = _outcomes(store, sources)
    for world, task, num_abilities, *blobs in store.execute(query):
        features = _features(num_abilities, blobs)
        pairs = [
            (model, measured[model["id"], task])
            for model in models.get(world, [])
            if (model["id"], task) in measured
        ]
        pairs = [(model, one) for model, one in pairs if np.isfinite(one[1])]
        if len(pairs) >= max(min_models, 1):
            found.append(_case(world, task, features, pairs))
    return found


def _models(
    store: sqlite3.Connection, sources: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    query = (
        "SELECT id, world, source, abilities, weights, seed FROM models ORDER BY "
        "world, seed, weights, id"
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for identity, world, source, abilities, weights, seed in store.execute(query):
        if source in sources:
            model = dict(
                id=identity,
                abilities=tuple(json.loads(abilities)),
                weights=json.loads(weights),
                seed=seed,
            )
            found.setdefault(world, []).append(model)
    return found


def _outcomes(
    store: sqlite3.Connection, sources: Sequence[str]
) -> dict[tuple[bytes, str], tuple]:
    """(model, task) -> category, loss, accuracy, loss before; nan is NULL there."""
    query = (
        "SELECT model_id, task, category, loss, accuracy, loss_before FROM outcomes "
        "JOIN models ON models.id = model_id WHERE source IN "
        f"({', '.join('?' * len(sources))})"
    )
    nan = float("nan")
    return {
        (model, task): (category, *(nan if x is None else x for x in numbers))
        for model, task, category, *numbers in store.execute(query, tuple(sources))
    }


def _features(num_abilities: int, blobs: Sequence[bytes]) -> Features:
    K = num_abilities
    task_G, ability, pair, size_K = (np.frombuffer(b, np.float32) for b in blobs)
    return check(
        Features(task_G, ability.reshape(K, -1), pair.reshape(K, K, -1), size_K)
    )


def _case(world: str, task: str, features: Features, pairs: list) -> Case:
    abilities = {model["abilities"] for model, _ in pairs}
    if len(abilities) > 1 or len(next(iter(abilities))) != features.num_abilities:
        raise ValueError(
            f"world {world!r}: its models have the abilities {sorted(abilities)} and "
            f"task {task!r} is embedded next to {features.num_abilities}; a world has "
            "the same abilities throughout"
        )
    return Case(
        world=world,
        task=task,
        category=pairs[0][1][0],
        abilities=next(iter(abilities)),
        features=features,
        weights_NK=np.array([model["weights"] for model, _ in pairs], np.float64),
        loss_N=np.array([one[1] for _, one in pairs], np.float64),
        accuracy_N=np.array([one[2] for _, one in pairs], np.float64),
        seed_N=np.array([model["seed"] for model, _ in pairs], np.int64),
        before=float(pairs[0][1][3]),
    )
