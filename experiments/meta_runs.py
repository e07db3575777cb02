"""The runs of `experiments.meta_initialisation`: one config for each way to start."""

import json
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from configs import base
from configs.base import ability
from dcft_jax.meta.worlds import Settings
from experiments.jobs import Job, make_job
from experiments.meta_data import (
    MEAN,
    TRIED,
    TRIED_MIXTURES,
    ability_path,
    base_path,
    choices_path,
    task_path,
    world_of,
)

DYNAMIC = "mirror_descent"
# Methods that choose a mixture for a task, see `experiments.meta_choices`.
CHOOSERS = ("knn", "ridge", "chameleon", "chameleon_target")
ARMS = {  # name -> rule, prior
    "meta": (DYNAMIC, "meta"),
    "uniform": (DYNAMIC, "uniform"),
    "proportional": (DYNAMIC, "proportional"),
    "mean": (DYNAMIC, "given"),
    **{name: (DYNAMIC, "given") for name in CHOOSERS},
    "meta_static": ("static", "meta"),
    "uniform_static": ("static", "uniform"),
    # The best of them for a task is what a sweep would have found: "oracle".
    **{f"tried_{n}": ("static", "given") for n in range(TRIED_MIXTURES)},
}
EVALUATIONS = 8  # of a run; the target's loss is known at each


def make_jobs(
    settings: Settings,
    seeds: Sequence[int],
    tasks: Sequence[str],
    arms: Sequence[str],
    folder: Path,
) -> list[Job]:
    """A job for each seed, task and arm. Arms that do not look at the task are one run
    for all tasks.
    """
    return [
        make_job(task, arm, seed, run_config(settings, seed, task, arm, folder))
        for seed in seeds
        for task in tasks
        for arm in arms
    ]


def run_config(
    settings: Settings, seed: int, task: str, arm: str, folder: Path
) -> ConfigDict:
    """As the populations were trained (`dcft_jax.meta.worlds`), by the real trainer."""
    world, training = world_of(settings, seed), settings.training
    config = base.get_config()
    for name in world.names:
        rows = dict(
            kind="jsonl",
            path=str(ability_path(folder, seed, name)),
            single_reference=True,
        )
        config.abilities[name] = ability(
            {"rows": rows}, mix_val=settings.support, test=settings.test
        )
    steps = max(training.steps // EVALUATIONS, 1)
    config.run.update(num_steps=training.steps, eval_every=steps, save_every=steps)
    # All of them: the target is measured on each, once the run is over.
    config.run.update(keep_checkpoints=training.steps, keep_best=False)
    config.data.update(
        seq_len=settings.seq_len, num_slots=training.rows, rows_per_slot=1, seed=seed
    )
    config.data.cache_dir = str(folder / "cache")
    config.pretrained.path = str(base_path(folder, world))
    config.model.compute_dtype = "float32"
    config.optimizer.update(
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup,
        schedule="wsd",
        decay_share=training.decay_share,
        final_share=0.0,
        weight_decay=training.weight_decay,
        clip_norm=training.clip_norm,
    )
    config.conflict.engine = "lagged"  # the fastest for models of this size
    config.logging.tensorboard = False
    _set_start(config, seed, task, arm, folder)
    return config


def _set_start(
    config: ConfigDict, seed: int, task: str, arm: str, folder: Path
) -> None:
    config.mixture.rule, config.mixture.prior = ARMS[arm]
    if config.mixture.prior == "meta":
        config.mixture.meta.support = str(task_path(folder, task, "support"))
        config.mixture.meta.single_reference = True
    if config.mixture.prior == "given":
        weights_K = _given(folder, seed, task, arm)
        for one, weight in zip(config.abilities.values(), weights_K, strict=True):
            one.weight = weight


def _given(folder: Path, seed: int, task: str, arm: str) -> list[float]:
    if arm in CHOOSERS:
        return json.loads(choices_path(folder, seed, task).read_text())[arm]
    if arm == "mean":
        return json.loads((folder / f"seed-{seed}" / MEAN).read_text())
    tried_NK = json.loads((folder / f"seed-{seed}" / TRIED).read_text())
    return tried_NK[int(arm.removeprefix("tried_"))]
