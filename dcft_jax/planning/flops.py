"""Floating-point operations of a traced program, all devices together.

XLA's own count takes the body of a loop once, however often it runs, and a decoder is a
loop over its layers. Here the products of matrices in the program as JAX traced it are
counted, times the length of every scan they are in: two operations for each multiply
and add, recomputation of activations included. All else (norms, softmax, the optimizer)
is left out, as in the peak that FLOP/s are compared with. Loops of unknown length count
once; the only ones here are solvers on K x K matrices.
"""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core


def count_flops(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> int:
    """Operations of all matrix products, over all devices."""
    inner = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    return sum(_equation(equation) for equation in inner.eqns)


def _equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _dot(equation)
    inside = [count_flops(jaxpr) for jaxpr in _inner(params)]
    if name == "cond":
        return max(inside)
    return sum(inside) * _repeats(name, params)


def _repeats(name: str, params: Any) -> int:
    if name == "scan":
        return params["length"]
    if name == "shard_map":  # its shapes are those of one device
        return math.prod(
            params["mesh"].shape[axis] for axis in params["newly_manual_axes"]
        )
    if name == "pallas_call":  # at most: kernels may leave blocks of the grid out
        return math.prod(params["grid_mapping"].grid)
    return 1


def _inner(params: Any) -> Iterator[core.ClosedJaxpr | core.Jaxpr]:
    for value in params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, (core.ClosedJaxpr, core.Jaxpr)):
                yield part


def _dot(equation: Any) -> int:
    """Every element of the result sums over the contracted axes."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    summed = math.prod(left[axis] for axis in contracted)
    return 2 * math.prod(equation.outvars[0].aval.shape) * summed
