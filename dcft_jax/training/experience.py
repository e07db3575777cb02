"""What a finished run adds to the experience that meta-networks are fitted on."""

import datetime
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dcft_jax.config import content_hash
from dcft_jax.data import pack_examples
from dcft_jax.distributed import is_first
from dcft_jax.evaluation.losses import (
    exact_match,
    make_eval_step,
    mean_loss,
    score_split,
)
from dcft_jax.evaluation.rows import place_rows
from dcft_jax.meta import Outcome, Record, add_embedding, add_run, open_store
from dcft_jax.meta.features import TASK
from dcft_jax.training.meta_prior import (
    budget_of,
    stored_features,
    support_examples,
    task_name,
)
from dcft_jax.training.run import Run
from dcft_jax.training.state import TrainState

NAME = "experience.sqlite"


def store_path(run: Run) -> Path | None:
    """The store that the config names; by default beside the work directory."""
    field = run.config.logging.experience
    if field == "auto":
        return run.workdir.absolute().parent / NAME
    return Path(field) if field else None


def add_experience(run: Run, state: TrainState, summary: Mapping[str, Any]) -> None:
    """Appends the run to the store. A store that cannot be written costs a warning."""
    path = store_path(run)
    if path is None:
        return
    predicted = run.config.mixture.prior == "meta"
    outcomes = [*_ability_outcomes(run, summary)]
    if predicted:
        outcomes.append(_support_outcome(run, state))
    if not is_first():
        return
    record = make_record(run, summary, outcomes)
    try:
        store = open_store(path)
        try:
            add_run(store, record)
            if predicted:
                features = stored_features(run.workdir)
                add_embedding(store, record.world, task_name(run.config), features)
        finally:
            store.close()
    except (sqlite3.Error, OSError, ValueError) as error:
        run.report(
            f"Warning: the run was not added to the experience in {path}: {error}"
        )


def make_record(
    run: Run, summary: Mapping[str, Any], outcomes: Sequence[Outcome]
) -> Record:
    metadata, budget = run.metadata(), budget_of(run.config)
    about = (
        *(metadata["base_hash"], metadata["tokenizer_hash"], metadata["data_hash"]),
        *(repr(run.program.model), run.abilities, budget),
    )
    path = tuple(
        (int(step), tuple(map(float, weights_K)))
        for step, weights_K in summary["weights_path"]
    )
    return Record(
        world=f"run-{content_hash(about)}",
        source="run",
        abilities=run.abilities,
        weights_K=tuple(mean_weights(path, run.num_steps).tolist()),
        weight_path=path,
        budget=budget,
        parameters=summary["num_parameters"],
        seed=run.config.run.seed,
        outcomes=tuple(outcomes),
        config_hash=metadata["config_hash"],
        versions=metadata["versions"],
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def mean_weights(
    path: Sequence[tuple[int, Sequence[float]]], num_steps: int
) -> np.ndarray:
    """Over the steps; each entry holds from its step to the next one's."""
    step_U = np.array([step for step, _ in path] + [num_steps])
    length_U = np.diff(step_U)
    weights_UK = np.array([weights_K for _, weights_K in path], np.float64)
    if not length_U.sum():
        return weights_UK[-1]
    return length_U @ weights_UK / length_U.sum()


def _ability_outcomes(run: Run, summary: Mapping[str, Any]) -> list[Outcome]:
    """On the test splits. There is none for an ability that was not measured."""
    outcomes = []
    for name in run.abilities:
        found = summary["abilities"][name]
        count = run.data.rows[name]["test"].num_response_tokens

        def value(key: str, found: Mapping[str, Any] = found) -> float:
            return float("nan") if found[key] is None else float(found[key])

        outcomes.append(
            Outcome(
                task=name,
                category="ability",
                loss_before=value("test_loss_before"),
                loss=value("test_loss_after"),
                accuracy_before=value("exact_match_before"),
                accuracy=value("exact_match_after"),
                tokens=count,
            )
        )
    return outcomes


def _support_outcome(run: Run, state: TrainState) -> Outcome:
    """Of the task that the prior was predicted for, on its support set."""
    config, model = run.config, run.program.model
    examples = support_examples(config)
    rows = pack_examples(examples, run.data.tokenizer, config.data.seq_len)
    slots = (config.data.num_slots, config.data.rows_per_slot)
    with jax.set_mesh(run.mesh):
        batches = place_rows(
            rows, slots, run.mesh, model.rules, rows.scored_NM.shape[1]
        )
        params = run.full(state.params)
        scores = score_split(make_eval_step(model), params, batches, rows.num_examples)
    before_G = stored_features(run.workdir).task_G
    return Outcome(
        task_name(config),
        "support",
        float(before_G[TASK.index("loss")]),
        float(mean_loss(scores)[0]),
        float(before_G[TASK.index("accuracy")]),
        float(exact_match(scores)[0]),
        int(scores.count_N.sum()),
    )
