"""Compiles a step and reads off it what it needs."""

import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from rich.console import Console

from dcft_jax.planning.arguments import bytes_per_chip
from dcft_jax.planning.flops import count_flops
from dcft_jax.planning.traffic import Collective, collectives

EXHAUSTED = "RESOURCE_EXHAUSTED"
# What compilers for TPU say: of everything, or of temporaries alone.
_USED = re.compile(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm")
_TEMPORARY = re.compile(r"required for HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Memory(NamedTuple):
    """Bytes on one device, as the compiler laid them out."""

    arguments: int
    outputs: int  # that do not take the place of an argument
    temporary: int
    code: int

    @property
    def total(self) -> int:
        return sum(self)


class Compiled(NamedTuple):
    """A step for one topology. Without `memory` the compiler refused it: too large."""

    flops: int  # of all devices
    seconds: float  # to trace, lower and compile
    memory: Memory | None
    collectives: Sequence[Collective]
    refusal: str = ""
    refused_bytes: int | None = None  # that it would have needed on one device


def compile_step(
    step: Any, arguments: Sequence[Any], mesh: Mesh, console: Console, what: str
) -> Compiled:
    """Compiles a jitted function for the devices of the mesh.

    Raises:
      jax.errors.JaxRuntimeError: the compiler fails for another reason than memory.
    """
    started = time.perf_counter()
    with jax.set_mesh(mesh):
        with console.status(f"tracing {what}"):
            traced = step.trace(*arguments)
            flops = count_flops(traced.jaxpr)
        with console.status(f"compiling {what} for {mesh.size} devices"):
            try:
                compiled = traced.lower().compile()
            except jax.errors.JaxRuntimeError as error:
                if EXHAUSTED not in str(error):
                    raise
                seconds = time.perf_counter() - started
                return _refused(flops, seconds, str(error), bytes_per_chip(arguments))
    seconds = time.perf_counter() - started
    with console.status(f"reading {what}"):
        found = collectives(compiled.as_text())
    return Compiled(flops, seconds, _memory(compiled.memory_analysis()), found)


def _memory(stats: Any) -> Memory:
    return Memory(
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
        temporary=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
    )


def _refused(flops: int, seconds: float, message: str, arguments: int) -> Compiled:
    used, temporary = _USED.search(message), _TEMPORARY.search(message)
    needed = None
    if used:
        needed = _size(*used.groups())
    elif temporary:
        needed = arguments + _size(*temporary.groups())
    first = message.strip().splitlines()[0]
    return Compiled(flops, seconds, None, (), first, needed)


def _size(number: str, unit: str) -> int:
    return int(float(number) * _UNITS[unit])
