"""The arguments of the train and eval steps, as shapes and shardings alone."""

import dataclasses
import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from dcft_jax.models import (
    STACKED,
    ModelConfig,
    abstract_params,
    combine,
    quantize_kernels,
)
from dcft_jax.sharding import concretize, logical_to_spec
from dcft_jax.training.program import Program
from dcft_jax.training.state import TrainState


class Arguments(NamedTuple):
    state: TrainState
    frozen: Any
    batch: dict[str, Any]
    eval_batch: dict[str, Any]

    @property
    def params(self) -> Any:
        """All of the decoder's, trained and frozen."""
        return combine(self.frozen, self.state.params)


def make_arguments(
    config: ConfigDict, program: Program, mesh: Mesh, examples_per_row: int
) -> Arguments:
    """What a run would pass to its two steps on this mesh."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        state = concretize(jax.eval_shape(program.init), mesh)
    frozen = _frozen(program.model, config.pretrained.quantize, mesh)
    data, num_parts = config.data, program.composition.num_parts
    rows = (data.num_slots, data.rows_per_slot, data.seq_len)

    def array(shape: tuple[int, ...], dtype: str, *names: str | None) -> Any:
        spec = logical_to_spec(program.model.rules, names)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    fields = {
        name: array(rows, dtype, "slot", "batch", None)
        for name, dtype in (
            ("tokens", "int32"),
            ("segments", "int32"),
            ("positions", "int32"),
            ("loss_mask", "bool"),
        )
    }
    batch = {f"{name}_SBL": field for name, field in fields.items()}
    batch["ability_S"] = array((data.num_slots,), "int32", None)
    batch["credit_C"] = array((num_parts,), "float32", None)
    batch["rows_C"] = array((num_parts,), "int32", None)
    scored = array((*rows[:2], examples_per_row), "bool", "slot", "batch", None)
    return Arguments(state, frozen, batch, fields | {"scored": scored})


def _frozen(model: ModelConfig, quantize: str, mesh: Mesh) -> Any:
    """The decoder under adapters, as `load_base` would load it; {} without any."""
    if model.lora is None:
        return {}
    params = abstract_params(dataclasses.replace(model, lora=None), mesh)
    if quantize == "none":
        return params
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        kernels = jax.eval_shape(
            partial(quantize_kernels, kind=quantize), params[STACKED]
        )
        return params | {STACKED: concretize(kernels, mesh)}


def bytes_per_chip(tree: Any) -> int:
    """Of arrays with shardings, on one device; layouts may pad them further."""
    leaves = jax.tree.leaves(tree)
    return sum(_bytes(x.sharding.shard_shape(x.shape), x.dtype) for x in leaves)


def total_bytes(tree: Any) -> int:
    """Of each array once, wherever it lies."""
    return sum(_bytes(x.shape, x.dtype) for x in jax.tree.leaves(tree))


def number_of(tree: Any) -> int:
    """Elements of all arrays."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def _bytes(shape: tuple[int, ...], dtype: Any) -> int:
    """Two numbers of four bits share a byte."""
    bits = 4 if str(dtype) in ("int4", "uint4") else 8 * jnp.dtype(dtype).itemsize
    return math.prod(shape) * bits // 8
