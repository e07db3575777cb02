"""What a run is made of: built once from the config, never changed afterwards."""

import dataclasses
import functools
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
from dcft_jax.data import Prepared, prepare, preview, tier_streams
from dcft_jax.distributed import check_same, first_goes_first, is_first
from dcft_jax.models import Opened, check_mesh, combine
from dcft_jax.sharding import (
    Rules,
    concretize,
    fields_of,
    make_mesh,
    needed_rows,
    num_parts,
)
from dcft_jax.training.base_model import (
    base_tokenizer,
    check_planned,
    hash_of,
    load_base,
    make_model,
    open_base,
)
from dcft_jax.training.meta_prior import with_predicted_prior
from dcft_jax.training.program import Program, build_program
from dcft_jax.training.provenance import code_hash
from dcft_jax.training.reference import reference_scorer
from dcft_jax.training.state import TrainState
from dcft_jax.training.workdir import (
    check_base,
    check_data,
    check_space,
    keep_tokenizer,
    open_workdir,
)

PACKAGES = (
    "jax",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "sentencepiece",
    "tokenizers",
    "jinja2",
)


@dataclasses.dataclass(frozen=True)
class Run:
    config: ConfigDict
    plain_config: Mapping[str, Any]
    workdir: Path
    console: Console
    data: Prepared
    mesh: jax.sharding.Mesh
    program: Program
    streams: Sequence[grain.MapDataset]  # one per component of the mixture
    base: Opened | None  # the model it starts from
    frozen: Any  # parameters that are not trained

    @property
    def abilities(self) -> tuple[str, ...]:
        return tuple(self.data.rows)

    @property
    def base_hash(self) -> str:
        return hash_of(self.base)

    def full(self, params: Any) -> Any:
        """All parameters of the decoder, given the trained ones."""
        return combine(self.frozen, params)

    @property
    def num_steps(self) -> int:
        return self.config.run.num_steps

    @functools.cached_property
    def needed_SB(self) -> np.ndarray:
        """Which rows of a batch this process reads, bool."""
        shape = (self.config.data.num_slots, self.config.data.rows_per_slot)
        return needed_rows(shape, self.mesh, self.program.model.rules)

    @property
    def rows_per_step(self) -> int:
        return self.config.data.num_slots * self.config.data.rows_per_slot

    @property
    def keep(self) -> int:
        """How many of the latest checkpoints are kept."""
        reach = self.program.composition.rule.reach
        return max(self.config.run.keep_checkpoints, reach + 1 if reach else 0)

    @property
    def best_of(self) -> tuple[str, ...]:
        """The abilities whose best checkpoint is kept."""
        return self.abilities if self.config.run.keep_best else ()

    def report(self, text: str) -> None:
        """Says what the user should know, in one line."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Reports on every process: each may have an output of its own."""
        if is_first():
            self.report(text)
        else:
            Console().print(text, markup=False, highlight=False, soft_wrap=True)

    def metadata(self) -> dict[str, Any]:
        """What a checkpoint or a summary says about where it came from."""
        return {
            "config_hash": config_lib.config_hash(self.plain_config),
            "data_hash": self.data.content_hash,
            "tokenizer_hash": self.data.tokenizer.content_hash,
            "base_hash": self.base_hash,
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            "code": code_hash(),
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
    check_batch(config, mesh)
    plain_config = config_lib.to_plain(config)
    check_same("config", plain_config)
    with first_goes_first():
        folder = open_workdir(workdir, plain_config)
        base = open_base(config)
        if base is not None:
            check_base(folder, base.content_hash)
    data = _prepare(config, mesh, base, console)
    with first_goes_first():
        check_data(folder, data.content_hash, data_sizes(data))
        keep_tokenizer(folder, data.tokenizer)
    show_data(data, console)
    size_KT, tier_KN = tier_sizes(data)
    model = make_model(config, data.tokenizer, base)
    check_planned(config, model)
    check_mesh(model, mesh)
    planned = config
    if config.mixture.prior == "meta":
        planned = with_predicted_prior(
            config, folder, data, size_KT.sum(axis=1), model, base, mesh, console
        )
    program = build_program(planned, model, size_KT, tier_KN, data.max_predicted)
    # Runs of several seeds have the same splits, and rows in other orders: one that
    # starts from a model draws nothing else.
    order = config.data.seed + config.run.seed
    streams = [
        stream
        for name, tiers in data.tiers.items()
        for stream in tier_streams(tiers.train, order, name)
    ]
    run = Run(
        config, plain_config, folder, console, data, mesh, program, streams, base, {}
    )
    check_space(folder, state_bytes(run), run.keep + len(run.best_of))
    if base is None or model.lora is None:
        return run
    with console.status(f"loading {base.source}"):
        return dataclasses.replace(
            run, frozen=load_base(base, model, mesh, config.pretrained.quantize)
        )


def _prepare(
    config: ConfigDict, mesh: jax.sharding.Mesh, base: Opened | None, console: Console
) -> Prepared:
    """By the first process; the others read what it cached."""
    scorer = reference_scorer(config, mesh, base)
    # A model that scores examples computes on the devices of all.
    with first_goes_first(wait=scorer is None):
        data = prepare(
            config,
            console=console,
            scorer=scorer,
            tokenizer=base_tokenizer(config, base),
        )
    check_same("data", data.content_hash)
    return data


def tier_sizes(data: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """Train rows `[K, T]`, 0 for no such tier; and which tier each mix-val example is
    in, int8 `[K, N]`, -1 for no example.
    """
    abilities = list(data.tiers.values())
    size_KT = np.zeros((len(abilities), max(map(len, abilities))), np.int64)
    num_examples = max(len(tiers.plan.mix_val_tier_N) for tiers in abilities)
    tier_KN = np.full((len(abilities), num_examples), -1, np.int8)
    for k, tiers in enumerate(abilities):
        size_KT[k, : len(tiers)] = [len(rows) for rows in tiers.train]
        tier_KN[k, : len(tiers.plan.mix_val_tier_N)] = tiers.plan.mix_val_tier_N
    return size_KT, tier_KN


def data_sizes(data: Prepared) -> dict[str, dict[str, Any]]:
    """Ability -> rows to train on, and source -> split -> examples."""
    return {
        name: {
            "train_rows": sum(map(len, data.tiers[name].train)),
            "examples": {source: dict(n) for source, n in report.counts.items()},
        }
        for name, report in data.reports.items()
    }


def show_data(data: Prepared, console: Console) -> None:
    """What was read, held out and dropped, and one example as the model sees it."""
    for report in data.reports.values():
        for line in report.lines():
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(
        "\nOne training example per ability; the loss is on the ⟦green⟧ text."
    )
    train = {name: tiers.train[0] for name, tiers in data.tiers.items()}
    console.print(preview(train, data.tokenizer))


def check_batch(config: ConfigDict, mesh: jax.sharding.Mesh) -> None:
    """Raises ValueError if slots, or the rows of one, do not divide over the mesh."""
    rules = Rules.from_config(config.mesh.rules)
    slots = num_parts(rules, "slot", mesh)
    config_lib.require(
        config.conflict.engine != "accumulate" or slots == 1,
        "conflict.engine",
        config.conflict.engine,
        f"takes the slots one after the other, so {fields_of(rules, 'slot')} must be "
        f"1, not {slots}; use materialize there",
    )
    rows = config.data.rows_per_slot // config.optimizer.accumulate
    for field, size, name in (
        ("data.num_slots", config.data.num_slots, "slot"),
        ("data.rows_per_slot / optimizer.accumulate", rows, "batch"),
    ):
        parts = num_parts(rules, name, mesh)
        config_lib.require(
            size % parts == 0,
            field,
            size,
            f"must be divisible by {fields_of(rules, name)} = {parts}",
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
    model, init = run.program.model, run.program.init
    if run.base is None or model.lora is not None:
        return jax.jit(init, out_shardings=shardings)()
    with run.console.status(f"loading {run.base.source}"):
        params = load_base(run.base, model, run.mesh)
    return jax.jit(init, out_shardings=shardings, donate_argnums=0)(params)
