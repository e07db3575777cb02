"""What a run is made of: built once from the config, never changed afterwards."""

import dataclasses
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax import config as config_lib
from dcft_jax.conflict import RESOLVERS, Resolver
from dcft_jax.data import (
    ROW_FIELDS,
    Prepared,
    Rows,
    ability_seed,
    eval_batches,
    make_stream,
    prepare,
    preview,
)
from dcft_jax.evaluation.losses import Scores, make_eval_step, score_split
from dcft_jax.mixture import RULES, MixtureRule, prior
from dcft_jax.models import ModelConfig, check_mesh
from dcft_jax.models import init as init_params
from dcft_jax.sharding import Rules, concretize, make_mesh, place
from dcft_jax.training.optimizer import make_optimizer, make_schedule
from dcft_jax.training.state import TrainState, init_mixture, init_state
from dcft_jax.training.step import make_train_step
from dcft_jax.training.workdir import check_data, check_space, open_workdir

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "sentencepiece")

# One evaluation set of an ability: device batch, example_SBM, scored_SBM.
EvalSet = list[tuple[dict[str, jax.Array], np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Run:
    config: ConfigDict
    plain_config: Mapping[str, Any]
    workdir: Path
    console: Console
    data: Prepared
    abilities: tuple[str, ...]
    mesh: jax.sharding.Mesh
    rules: Rules
    model: ModelConfig
    rule: MixtureRule
    schedule: optax.Schedule
    init: Callable[[], TrainState]
    train_step: Callable
    eval_step: Callable
    streams: Sequence[grain.MapDataset]
    train_rows_K: np.ndarray
    reference_loss_K: np.ndarray

    @property
    def num_steps(self) -> int:
        return self.config.run.num_steps

    @property
    def rows_per_step(self) -> int:
        return self.config.data.num_slots * self.config.data.rows_per_slot

    def metadata(self) -> dict[str, Any]:
        """What a checkpoint or a summary says about where it came from."""
        return {
            "config_hash": config_lib.config_hash(self.plain_config),
            "data_hash": self.data.content_hash,
            "versions": versions(),
        }


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def make_rule(config: ConfigDict) -> MixtureRule:
    """The mixture rule that the config names."""
    mixture = config.mixture
    if mixture.rule == "static":
        return RULES["static"]()
    return RULES[mixture.rule](
        step_size=mixture.step_size,
        anchor=mixture.anchor,
        floor=mixture.floor,
        max_weight_K=[ability.max_weight for ability in config.abilities.values()],
        smoothing=mixture.smoothing,
        warmup_updates=mixture.warmup_updates,
        signals=mixture.signals.to_dict(),
    )


def make_resolver(config: ConfigDict) -> Resolver:
    factory = RESOLVERS[config.conflict.resolver]
    if config.conflict.resolver == "pcgrad":  # visits abilities in random order
        return factory(seed=config.run.seed)
    return factory()


def open_run(
    config: ConfigDict,
    workdir: str | Path,
    console: Console | None = None,
    devices: Sequence[Any] | None = None,
) -> Run:
    """Checks the config, prepares the data and builds all that a run needs.

    Args:
      devices: what the mesh is made of; None: all of them.

    Raises:
      ValueError, OSError: with the field, its value and the way out; nothing
        long has started by then except preparing the data.
    """
    console = console or Console()
    config_lib.validate(config)
    mesh = make_mesh(config.mesh, devices)
    _check_batch(config, mesh)
    plain_config = config_lib.to_plain(config)
    folder = open_workdir(workdir, plain_config)
    data = prepare(config, console=console)
    check_data(folder, data.content_hash)
    show_data(data, console)
    train_rows = [data.rows[name]["train"] for name in config.abilities]
    rules = Rules.from_config(config.mesh.rules)
    model = ModelConfig.from_config(config.model, data.tokenizer.vocab_size, rules)
    check_mesh(model, mesh)
    optimizer = make_optimizer(config.optimizer, config.run.num_steps)
    rule, resolver = make_rule(config), make_resolver(config)
    step = make_train_step(
        model, optimizer, resolver, rule, config.optimizer.accumulate
    )
    sizes_K = np.array([len(rows) for rows in train_rows])
    mixture = config.mixture
    given = [ability.weight for ability in config.abilities.values()]
    prior_K = prior(mixture.prior, list(sizes_K), mixture.temperature, given)
    num_examples = max(
        data.rows[name]["mix_val"].num_examples for name in config.abilities
    )

    def init() -> TrainState:
        params = init_params(model, jax.random.key(config.run.seed))
        moving = init_mixture(rule, jnp.asarray(prior_K), num_examples)
        return init_state(params, optimizer, resolver, moving)

    run = Run(
        config=config,
        plain_config=plain_config,
        workdir=folder,
        console=console,
        data=data,
        abilities=tuple(config.abilities),
        mesh=mesh,
        rules=rules,
        model=model,
        rule=rule,
        schedule=make_schedule(config.optimizer, config.run.num_steps),
        init=init,
        train_step=jax.jit(step, donate_argnums=0),
        eval_step=make_eval_step(model),
        streams=[
            make_stream(rows, ability_seed(config.data.seed, name))
            for name, rows in zip(config.abilities, train_rows, strict=True)
        ],
        train_rows_K=sizes_K,
        # None becomes nan: not known.
        reference_loss_K=np.array(
            [ability.reference_loss for ability in config.abilities.values()],
            np.float32,
        ),
    )
    check_space(folder, state_bytes(run), config.run.keep_checkpoints)
    return run


def show_data(data: Prepared, console: Console) -> None:
    """What was read, held out and dropped, and one example as the model sees it."""
    for report in data.reports.values():
        for line in report.lines():
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(
        "\nOne training example per ability; the loss is on the ⟦green⟧ text."
    )
    train = {name: splits["train"] for name, splits in data.rows.items()}
    console.print(preview(train, data.tokenizer))


def _check_batch(config: ConfigDict, mesh: jax.sharding.Mesh) -> None:
    rows = config.data.rows_per_slot // config.optimizer.accumulate
    for field, size, axis in (
        ("data.num_slots", config.data.num_slots, "ability"),
        ("data.rows_per_slot / optimizer.accumulate", rows, "data"),
    ):
        config_lib.require(
            size % mesh.shape[axis] == 0,
            field,
            size,
            f"must be divisible by mesh.{axis} = {mesh.shape[axis]}",
        )


def abstract_state(run: Run) -> TrainState:
    """Shapes, dtypes and shardings of the state; nothing is computed."""
    with jax.set_mesh(run.mesh):
        return concretize(jax.eval_shape(run.init), run.mesh)


def state_bytes(run: Run) -> int:
    leaves = jax.tree.leaves(abstract_state(run))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def place_split(run: Run, split: str) -> list[EvalSet]:
    """Puts a held-out split of every ability on the devices, in training shape.

    All sets have one shape, so that evaluation compiles once.
    """
    num_segments = max(
        rows.scored_NM.shape[1]
        for splits in run.data.rows.values()
        for name, rows in splits.items()
        if name != "train"
    )
    return [
        _place_rows(run, run.data.rows[name][split], num_segments)
        for name in run.abilities
    ]


def _place_rows(run: Run, rows: Rows, num_segments: int) -> EvalSet:
    slots = (run.config.data.num_slots, run.config.data.rows_per_slot)

    def pad(x_NM: np.ndarray, fill: int) -> np.ndarray:
        missing = num_segments - x_NM.shape[1]
        x_NM = np.pad(x_NM, ((0, 0), (0, missing)), constant_values=fill)
        return x_NM.reshape(*slots, num_segments)

    sets = []
    for batch in eval_batches(rows, run.rows_per_step):
        example_SBM = pad(batch["example_NM"], -1)
        scored_SBM = pad(batch["scored_NM"], 0)
        arrays = {name: batch[f"{name}_NL"].reshape(*slots, -1) for name in ROW_FIELDS}
        arrays["scored"] = scored_SBM
        sets.append((place(arrays, run.mesh, run.rules), example_SBM, scored_SBM))
    return sets


def jit_init(run: Run) -> TrainState:
    """A fresh state, created sharded: no device ever holds all of it."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(run))
    return jax.jit(run.init, out_shardings=shardings)()


def score(run: Run, params: Any, sets: Sequence[EvalSet], split: str) -> list[Scores]:
    """Scores of every ability on a split placed by `place_split`."""
    return [
        score_split(
            run.eval_step, params, sets[k], run.data.rows[name][split].num_examples
        )
        for k, name in enumerate(run.abilities)
    ]
