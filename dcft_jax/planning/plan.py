"""What a config needs and how fast it could be, from its compiled programs."""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax import config as config_lib
from dcft_jax.models import ModelConfig, abstract_params, check_mesh, split
from dcft_jax.planning.arguments import (
    Arguments,
    bytes_per_chip,
    make_arguments,
    number_of,
)
from dcft_jax.planning.chips import Chip, chip_of
from dcft_jax.planning.compiling import Compiled, compile_step
from dcft_jax.planning.flops import count_flops
from dcft_jax.planning.model import planned_model
from dcft_jax.planning.roofline import Roofline, roofline
from dcft_jax.planning.sizes import Sizes, measure_sizes
from dcft_jax.planning.topology import topology_devices
from dcft_jax.sharding import make_mesh
from dcft_jax.training.program import Program, build_program
from dcft_jax.training.run import check_batch
from dcft_jax.training.state import init_mixture
from dcft_jax.training.step import slot_loss


@dataclasses.dataclass(frozen=True)
class Plan:
    config: ConfigDict
    mesh: Mesh
    chip: Chip | None  # None: a device whose peaks are not known
    topology: str  # "": the devices at hand
    arguments: Arguments
    program: Program
    sizes: Sizes
    train: Compiled
    eval: Compiled
    plain_flops: int  # of the gradient of one mean loss, nothing recomputed
    roofline: Roofline | None  # None: unknown chip, or the step was refused

    @property
    def tokens_per_step(self) -> int:
        data = self.config.data
        return data.num_slots * data.rows_per_slot * data.seq_len

    @property
    def num_params(self) -> int:
        return number_of(self.arguments.params)

    @property
    def num_trained(self) -> int:
        return number_of(self.arguments.state.params)

    @property
    def state_by_kind(self) -> dict[str, int]:
        """Bytes of one device that are there from start to end."""
        state = self.arguments.state
        return {
            "trained parameters": bytes_per_chip(state.params),
            "optimizer": bytes_per_chip(state.opt_state),
            "frozen parameters": bytes_per_chip(self.arguments.frozen),
            "mixture and conflict": bytes_per_chip((state.mixture, state.conflict)),
        }

    @property
    def hbm_by_kind(self) -> dict[str, int]:
        """Bytes of one device during the train step; their sum is what it needs."""
        kinds = self.state_by_kind | {"batch": bytes_per_chip(self.arguments.batch)}
        memory = self.train.memory
        if memory is None:
            return kinds
        kinds["padding"] = max(0, memory.arguments - sum(kinds.values()))
        kinds["temporary"] = memory.temporary
        kinds["outputs"] = memory.outputs
        return kinds | {"code": memory.code}

    @property
    def hbm_bytes(self) -> int | None:
        """Of one device at its fullest; None: the compiler did not say."""
        steps = [_needed(self.train), self._eval_bytes]
        return None if None in steps else max(n for n in steps if n is not None)

    @property
    def _eval_bytes(self) -> int | None:
        """Optimizer and mixture stay while the parameters are evaluated."""
        needed = _needed(self.eval)
        state = self.state_by_kind
        kept = state["optimizer"] + state["mixture and conflict"]
        return None if needed is None else needed + kept

    @property
    def capacity_gib(self) -> float | None:
        return self.chip.hbm_gib if self.chip else None

    @property
    def fits(self) -> bool | None:
        """None: the capacity is not known."""
        if self.train.memory is None or self.eval.memory is None:
            return False
        if self.capacity_gib is None or self.hbm_bytes is None:
            return None
        return self.hbm_bytes <= self.capacity_gib * 2**30

    @property
    def mfu(self) -> float | None:
        """Of the estimate: the operations that plain training needs, of the peak."""
        if self.roofline is None or self.chip is None:
            return None
        peak = self.chip.bf16_flops * self.mesh.size
        return self.plain_flops / (self.roofline.estimate * peak)

    @property
    def epochs_KT(self) -> np.ndarray | None:
        """Passes over each tier in the whole run if the mixture stays as it starts.

        nan: no such tier. None: the data is not here.
        """
        if self.sizes.unknown:
            return None
        composition = self.program.composition
        mixture = init_mixture(composition, self.sizes.tier_KN.shape[1])
        rows = composition.num_steps * composition.num_slots * composition.rows_per_slot
        epochs_KT = np.full(self.sizes.size_KT.shape, np.nan)
        drawn_C = np.asarray(mixture.shares_C, np.float64) * rows
        epochs_KT[composition.parts] = drawn_C / composition.rows_per_epoch_C
        return epochs_KT


def _needed(step: Compiled) -> int | None:
    return step.memory.total if step.memory else step.refused_bytes


def make_plan(
    config: ConfigDict,
    topology: str = "",
    console: Console | None = None,
) -> Plan:
    """Compiles the train and eval steps of a config; no array of the model is made.

    Args:
      topology: such as "v4:4x4x4"; empty: the devices at hand.

    Raises:
      ValueError, OSError: with the field, its value and the way out.
    """
    console = console or Console(quiet=True)
    config_lib.validate(config)
    devices = topology_devices(topology) if topology else jax.devices()
    mesh = make_mesh(config.mesh, devices)
    check_batch(config, mesh)
    sizes = measure_sizes(config, console)
    model = planned_model(config, sizes.vocab_size)
    check_mesh(model, mesh)
    program = build_program(
        config, model, sizes.size_KT, sizes.tier_KN, sizes.max_predicted
    )
    arguments = make_arguments(config, program, mesh, sizes.examples_per_row)
    compiled = partial(compile_step, mesh=mesh, console=console)
    train = compiled(program.train_step, arguments[:3], what="the train step")
    evaluation = (arguments.params, arguments.eval_batch)
    evaluated = compiled(program.eval_step, evaluation, what="the eval step")
    chip = chip_of(devices[0].device_kind)
    speed = None
    if chip and train.memory:
        speed = roofline(chip, mesh, train.flops, train.memory, train.collectives)
    return Plan(
        config=config,
        mesh=mesh,
        chip=chip,
        topology=topology,
        arguments=arguments,
        program=program,
        sizes=sizes,
        train=train,
        eval=evaluated,
        plain_flops=plain_flops(config, model, sizes.max_predicted),
        roofline=speed,
    )


def plain_flops(
    config: ConfigDict, model: ModelConfig, max_predicted: int | None
) -> int:
    """Operations of one gradient over all rows at once, with nothing recomputed."""
    model = dataclasses.replace(model, remat="none", logits_chunk=0)
    params, frozen = split(abstract_params(model))
    data = config.data
    shape = (data.num_slots * data.rows_per_slot, data.seq_len)
    rows: dict[str, Any] = {
        name: jax.ShapeDtypeStruct(shape, dtype)
        for name, dtype in (
            ("tokens", "int32"),
            ("segments", "int32"),
            ("positions", "int32"),
            ("loss_mask", "bool"),
        )
    }

    def loss(params: Any, frozen: Any, rows: Any) -> jax.Array:
        return slot_loss(model, params, frozen, rows, max_predicted=max_predicted)[0]

    return count_flops(jax.make_jaxpr(jax.grad(loss))(params, frozen, rows))
