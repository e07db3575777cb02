"""Frozen kernels in 8 or 4 bits, by qwix; dequantised where they are read.

- "int8": symmetric, one scale for each output channel.
- "nf4": the 4-bit NormalFloat of QLoRA (arXiv:2305.14314), one scale for each block of
  64 inputs (or all of them, if 64 does not divide their number) of an output channel.
  Scales are not quantised again. On a mesh every device holds these kernels whole: an
  axis that is split cannot be cut into blocks.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import qwix

from dcft_jax.sharding import replicate

KINDS = ("none", "int8", "nf4")
BLOCK = 64


def dense(kernel: Any, dtype: jnp.dtype) -> jax.Array:
    """The kernel as an array, whatever it is stored as."""
    if isinstance(kernel, qwix.QArray):
        kernel = qwix.dequantize(kernel)
    return kernel.astype(dtype)


def quantize_kernels(stack: Any, kind: str) -> Any:
    """The kernels of a stack of layers, [N, inputs..., outputs...], quantised.

    Norms and biases stay as they are.

    Raises:
      ValueError: for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"pretrained.quantize={kind!r} must be one of {KINDS}")
    if kind == "none":
        return stack
    return _walk(stack, kind, num_inputs=1)


def _walk(params: Mapping[str, Any], kind: str, num_inputs: int) -> dict[str, Any]:
    quantised = {}
    for name, part in params.items():
        if isinstance(part, Mapping):
            # Attention's output contracts heads and channels, all others one axis.
            quantised[name] = _walk(part, kind, 2 if name == "out" else 1)
        elif name == "kernel":
            quantised[name] = _quantize(num_inputs, kind, part)
        else:
            quantised[name] = part
    return quantised


@partial(jax.jit, static_argnums=(0, 1))
def _quantize(num_inputs: int, kind: str, kernel: jax.Array) -> qwix.QArray:
    others = [axis for axis in range(kernel.ndim) if axis != num_inputs]
    if kind == "nf4":
        # Blocks along the last input axis; heads, outputs and layers have their own.
        kernel = replicate(kernel)
        size = kernel.shape[num_inputs]
        block = BLOCK if size % BLOCK == 0 else size
        return qwix.quantize(
            kernel, "nf4", channelwise_axes=others, tiled_axes={num_inputs: block}
        )
    outputs = [0, *range(num_inputs + 1, kernel.ndim)]
    return qwix.quantize(kernel, jnp.int8, channelwise_axes=outputs)
