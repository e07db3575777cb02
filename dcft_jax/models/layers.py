"""Parts of a decoder layer: projections, norms, the gated MLP, rotary embedding.

Axes: B rows, L length, D width, F hidden, H query heads, G key/value heads,
C channels of one head, V vocabulary.
"""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dcft_jax import sharding
from dcft_jax.models.config import ModelConfig
from dcft_jax.models.lora import LoRA
from dcft_jax.models.quantized import dense

Axes = tuple[str | None, ...]
ACTIVATION = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=True),
}


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis, in float32 (arXiv:1910.07467)."""

    def __init__(self, config: ModelConfig, size: int):
        self.config = config
        start = 1.0 - config.norm_offset
        self.scale = nnx.Param(jnp.full((size,), start, config.param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        power = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        scale = self.config.norm_offset + self.scale[...].astype(jnp.float32)
        y32 = x32 * jax.lax.rsqrt(power + self.config.norm_eps) * scale
        return y32.astype(x.dtype)


class MLP(nnx.Module):
    """Gated MLP: SwiGLU or GeGLU (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        wide, axes = (config.width, config.hidden), ("embed", "mlp")
        residual = 0.5 / config.num_layers
        enter = functools.partial(Linear, config, "ND,DF->NF", wide, axes, rngs=rngs)
        self.gate, self.up = enter(adapter="gate"), enter(adapter="up")
        self.down = Linear(
            config,
            "NF,FD->ND",
            wide[::-1],
            axes[::-1],
            gain=residual,
            adapter="down",
            rngs=rngs,
        )

    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        inner = sharding.ambient_spec(self.config.rules, ("batch", None, "mlp"))
        outer = sharding.ambient_spec(self.config.rules, ("batch", None, None))
        activation = ACTIVATION[self.config.activation]
        gate_BLF = activation(self.gate(x_BLD, out_sharding=inner))
        up_BLF = self.up(x_BLD, out_sharding=inner)
        return self.down(gate_BLF * up_BLF, out_sharding=outer)


class Linear(nnx.Module):
    """Linear map of every token; contracts the first `num_inputs` axes of the kernel.

    The kernel is drawn from a truncated normal of variance gain / fan-in; the bias,
    over the remaining axes, starts at zero. With `adapter`, and if that is one of the
    targets of `config.lora`, it has a low-rank adapter, whose A is drawn as in PEFT
    (uniform, variance 1 / (3 fan-in)) and whose B starts at zero.
    """

    def __init__(
        self,
        config: ModelConfig,
        equation: str,
        shape: tuple[int, ...],
        axes: Axes,
        *,
        rngs: nnx.Rngs,
        num_inputs: int = 1,
        gain: float = 1.0,
        bias: bool = False,
        adapter: str = "",
    ):
        self.equation, self.config = equation, config
        inputs, outputs = range(num_inputs), range(num_inputs, len(shape))
        kernel_init = jax.nn.initializers.variance_scaling(
            gain, "fan_in", "truncated_normal", in_axis=inputs, out_axis=outputs
        )
        kernel_init = _sharded(kernel_init, config, axes)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, config.param_dtype))
        if bias:
            bias_init = _sharded(jax.nn.initializers.zeros, config, axes[num_inputs:])
            bias_init = bias_init(rngs.params(), shape[num_inputs:], config.param_dtype)
            self.bias = nnx.Param(bias_init)
        if config.lora is not None and adapter in config.lora.targets:
            self._add_adapter(config.lora, shape, axes, num_inputs, rngs)

    def _add_adapter(self, lora: LoRA, shape, axes, num_inputs: int, rngs) -> None:
        self.adapter_scale = lora.scale
        down_init = jax.nn.initializers.variance_scaling(
            1 / 3, "fan_in", "uniform", in_axis=range(num_inputs), out_axis=-1
        )
        down_init = _sharded(down_init, self.config, (*axes[:num_inputs], None))
        up_init = _sharded(
            jax.nn.initializers.zeros, self.config, (None, *axes[num_inputs:])
        )
        down, up = (*shape[:num_inputs], lora.rank), (lora.rank, *shape[num_inputs:])
        # Trained, so in full precision whatever the frozen kernel has.
        self.lora_a = nnx.Param(down_init(rngs.params(), down, jnp.float32))
        self.lora_b = nnx.Param(up_init(rngs.params(), up, jnp.float32))

    def __call__(self, x: jax.Array, out_sharding=None) -> jax.Array:
        dtype = self.config.dtype
        x = x.astype(dtype)
        kernel = dense(self.kernel[...], dtype)
        y = map_tokens(self.equation, x, kernel, out_sharding)
        if hasattr(self, "lora_a"):
            y = y + self._adapt(x, out_sharding)
        return y + self.bias[...].astype(dtype) if hasattr(self, "bias") else y

    def _adapt(self, x: jax.Array, out_sharding) -> jax.Array:
        """`s x A B`, in the order that costs r times the tokens and not a kernel."""
        tokens, kernel, out = re.split(",|->", self.equation)
        inputs = kernel[: self.lora_a.ndim - 1]
        inner = sharding.ambient_spec(self.config.rules, ("batch", None, None))
        down, up = self.lora_a[...].astype(x.dtype), self.lora_b[...].astype(x.dtype)
        x = map_tokens(f"{tokens},{inputs}R->NR", x, down, inner)
        y = map_tokens(f"NR,R{kernel[len(inputs) :]}->{out}", x, up, out_sharding)
        return self.adapter_scale * y


def map_tokens(
    equation: str, x: jax.Array, kernel: jax.Array, out_sharding=None, **options
) -> jax.Array:
    """`einsum(equation, x, kernel)` with the axes [B, L] of `x` merged into N.

    The gradient of the kernel then contracts one axis, which XLA does in one product of
    matrices; with two it transposes first on CPUs, which takes up to twice the time.
    """
    rows, length = x.shape[:2]
    explicit = out_sharding is not None
    merged = _without(jax.typeof(x).sharding.spec, 1) if explicit else None
    x = jax.lax.reshape(x, (rows * length, *x.shape[2:]), out_sharding=merged)
    inner = _without(out_sharding, 1) if explicit else None
    y = jnp.einsum(equation, x, kernel, out_sharding=inner, **options)
    return jax.lax.reshape(y, (rows, length, *y.shape[1:]), out_sharding=out_sharding)


def _without(spec, axis: int):
    entries = tuple(spec)
    return jax.sharding.PartitionSpec(*entries[:axis], *entries[axis + 1 :])


def embedding_table(config: ModelConfig, rngs: nnx.Rngs) -> jax.Array:
    """Table [V, D] of standard deviation D ** -0.5: tied logits start at unit scale."""
    init = jax.nn.initializers.normal(1.0 / math.sqrt(config.width))
    init = _sharded(init, config, ("vocab", "embed"))
    return init(rngs.params(), (config.vocab_size, config.width), config.param_dtype)


def rope_frequencies(config: ModelConfig, local: bool) -> np.ndarray:
    """Radians per position of each pair of channels, float32 [C/2] (arXiv:2104.09864).

    Windowed (local) layers have their own base if one is set and are never scaled.
    """
    theta = (local and config.local_rope_theta) or config.rope_theta
    exponents = np.arange(0, config.head_dim, 2) / config.head_dim
    frequencies = theta**-exponents
    if not local and config.rope_scaling == "linear":
        frequencies = frequencies / config.rope_scaling_factor
    if not local and config.rope_scaling == "llama3":
        frequencies = _llama3_frequencies(config, frequencies)
    return frequencies.astype(np.float32)


def rope_angles(
    config: ModelConfig, positions_BL: jax.Array, local: bool
) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine, float32 [B, L, 1, C/2], broadcast over heads by `rotate`."""
    frequencies = rope_frequencies(config, local)
    angles = positions_BL.astype(jnp.float32)[:, :, None, None] * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x_BLHC: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Turns channel i together with channel i + C/2 (the half-rotation layout)."""
    first, second = jnp.split(x_BLHC.astype(jnp.float32), 2, axis=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(turned, axis=-1).astype(x_BLHC.dtype)


def soft_cap(x: jax.Array, cap: float) -> jax.Array:
    """Smooth limit to (-cap, cap); 0 means no limit (Gemma 2, arXiv:2408.00118)."""
    return jnp.tanh(x / cap) * cap if cap else x


def _llama3_frequencies(config: ModelConfig, frequencies: np.ndarray) -> np.ndarray:
    """Slow pairs are divided by the factor, fast ones kept, between them interpolated.

    The context extension of Llama 3.1 (arXiv:2407.21783): what counts is how often a
    pair turns within the original context.
    """
    low, high = config.rope_low_frequency_factor, config.rope_high_frequency_factor
    turns = config.rope_original_length * frequencies / (2 * np.pi)
    keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequencies * (keep + (1.0 - keep) / config.rope_scaling_factor)


def _sharded(init, config: ModelConfig, axes: Axes):
    """The initialiser, drawing each shard on its own devices."""
    spec = sharding.ambient_spec(config.rules, axes)
    return functools.partial(init, out_sharding=spec)
