"""What a run is made of: built once from the config, never changed afterwards."""

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax import config as config_lib
from dcft_jax.data import Prepared, ability_seed, make_stream, prepare, preview
from dcft_jax.models import check_mesh
from dcft_jax.sharding import concretize, make_mesh
from dcft_jax.training.program import Program, build_program
from dcft_jax.training.state import TrainState
from dcft_jax.training.workdir import check_data, check_space, open_workdir

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "sentencepiece")


@dataclasses.dataclass(frozen=True)
class Run:
    config: ConfigDict
    plain_config: Mapping[str, Any]
    workdir: Path
    console: Console
    data: Prepared
    mesh: jax.sharding.Mesh
    program: Program
    streams: Sequence[grain.MapDataset]  # one per ability, in their order

    @property
    def abilities(self) -> tuple[str, ...]:
        return tuple(self.data.rows)

    @property
    def num_steps(self) -> int:
        return self.config.run.num_steps

    @property
    def rows_per_step(self) -> int:
        return self.config.data.num_slots * self.config.data.rows_per_slot

    @property
    def train_rows_K(self) -> np.ndarray:
        """Rows in an epoch of each ability."""
        return np.array([len(splits["train"]) for splits in self.data.rows.values()])

    @property
    def reference_loss_K(self) -> np.ndarray:
        """float32; nan where the config has None, for unknown."""
        abilities = self.config.abilities.values()
        return np.array([ability.reference_loss for ability in abilities], np.float32)

    def metadata(self) -> dict[str, Any]:
        """What a checkpoint or a summary says about where it came from."""
        return {
            "config_hash": config_lib.config_hash(self.plain_config),
            "data_hash": self.data.content_hash,
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        }


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
    splits = data.rows.values()
    program = build_program(
        config,
        vocab_size=data.tokenizer.vocab_size,
        sizes_K=[len(rows["train"]) for rows in splits],
        num_examples=max(rows["mix_val"].num_examples for rows in splits),
    )
    check_mesh(program.model, mesh)
    streams = [
        make_stream(rows["train"], ability_seed(config.data.seed, name))
        for name, rows in data.rows.items()
    ]
    run = Run(config, plain_config, folder, console, data, mesh, program, streams)
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
    config_lib.require(
        config.conflict.engine != "accumulate" or mesh.shape["ability"] == 1,
        "conflict.engine",
        config.conflict.engine,
        "takes the slots one after the other, so mesh.ability must be 1, not "
        f"{mesh.shape['ability']}; use materialize there",
    )
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
        return concretize(jax.eval_shape(run.program.init), run.mesh)


def state_bytes(run: Run) -> int:
    leaves = jax.tree.leaves(abstract_state(run))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def jit_init(run: Run) -> TrainState:
    """A fresh state, created sharded: no device ever holds all of it."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(run))
    return jax.jit(run.program.init, out_shardings=shardings)()
