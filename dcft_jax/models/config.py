"""Static description of a decoder."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from dcft_jax import sharding
from dcft_jax.models.lora import LoRA

ACTIVATIONS = ("silu", "gelu")
REMAT = ("none", "full", "dots", "all_dots")
ROPE_SCALINGS = ("none", "linear", "llama3")
ATTENTIONS = ("auto", "dense")
DTYPES = ("float32", "bfloat16", "float16")
POSITIVE = ("vocab_size", "num_layers", "width", "hidden", "num_heads", "head_dim")
POSITIVE += ("num_kv_heads", "rope_theta", "norm_eps", "rope_scaling_factor")
POSITIVE += ("rope_low_frequency_factor", "rope_original_length")
NOT_NEGATIVE = ("query_scale", "attention_softcap", "logits_softcap", "sliding_window")
NOT_NEGATIVE += ("global_every", "local_rope_theta", "logits_chunk")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One decoder; the fields are those of `config.model` and are explained there.

    Frozen and hashable, so it can be a static argument of `jax.jit`. Raises ValueError
    naming field, value and constraint if a field is out of range.
    """

    vocab_size: int
    rules: sharding.Rules
    num_layers: int
    width: int
    hidden: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    activation: str
    rope_theta: float
    norm_eps: float
    norm_offset: float
    post_norms: bool
    qkv_bias: bool
    qk_norm: bool
    query_scale: float
    attention_softcap: float
    logits_softcap: float
    sliding_window: int
    global_every: int
    local_rope_theta: float
    rope_scaling: str
    rope_scaling_factor: float
    rope_low_frequency_factor: float
    rope_high_frequency_factor: float
    rope_original_length: int
    scale_embeddings: bool
    tie_embeddings: bool
    remat: str
    param_dtype: str
    compute_dtype: str
    logits_chunk: int = 0
    attention: str = "auto"  # how it is computed: see splash.py
    lora: LoRA | None = None  # config.lora; None: all parameters are trained

    def __post_init__(self) -> None:
        _validate(self)

    @classmethod
    def from_config(
        cls,
        model: Mapping[str, Any],
        vocab_size: int,
        rules: sharding.Rules | Mapping[str, Any],
        lora: Mapping[str, Any] | None = None,
    ) -> "ModelConfig":
        """From the groups `model`, `mesh.rules` and `lora` of a config."""
        return cls(
            vocab_size=vocab_size,
            rules=sharding.Rules.from_config(rules),
            lora=None if lora is None else LoRA.from_config(lora),
            **dict(model),
        )

    @property
    def attention_scale(self) -> float:
        return self.query_scale or 1.0 / math.sqrt(self.head_dim)

    @property
    def dtype(self) -> jnp.dtype:
        """Of activations and matrix products."""
        return jnp.dtype(self.compute_dtype)

    def is_local(self) -> tuple[bool, ...]:
        """Per layer: does it look back over the sliding window only?"""
        every = self.global_every or self.num_layers + 1
        windowed = self.sliding_window > 0
        return tuple(windowed and (i + 1) % every != 0 for i in range(self.num_layers))


def check_mesh(config: ModelConfig, mesh: Mesh | AbstractMesh) -> None:
    """Raises ValueError if the mesh splits an axis of the parameters unevenly."""
    sizes = dict(
        embed=("model.width", config.width),
        vocab=("the vocabulary", config.vocab_size),
        heads=("model.num_heads", config.num_heads),
        kv_heads=("model.num_kv_heads", config.num_kv_heads),
        mlp=("model.hidden", config.hidden),
    )
    for name, (what, size) in sizes.items():
        spec = sharding.logical_to_spec(config.rules, (name,))
        sharding.check_divisible(
            (size,), spec, mesh, f"{what} ({name!r} in mesh.rules)"
        )


def _validate(config: ModelConfig) -> None:
    _check_choices(config)
    _check_ranges(config)
    if config.num_heads % config.num_kv_heads:
        raise ValueError(
            f"model.num_heads={config.num_heads} must be a multiple of "
            f"model.num_kv_heads={config.num_kv_heads}: query heads share key heads"
        )
    if config.head_dim % 2:
        raise ValueError(
            f"model.head_dim={config.head_dim} must be even: rotary position embedding "
            "turns pairs of channels"
        )
    if config.global_every and not config.sliding_window:
        raise ValueError(
            f"model.global_every={config.global_every} needs model.sliding_window > 0: "
            "without a window every layer is global; set one of them"
        )
    low, high = config.rope_low_frequency_factor, config.rope_high_frequency_factor
    if high <= low:
        raise ValueError(
            f"model.rope_high_frequency_factor={high} must be above "
            f"model.rope_low_frequency_factor={low}"
        )


def _check_choices(config: ModelConfig) -> None:
    choices = dict(
        activation=ACTIVATIONS,
        remat=REMAT,
        rope_scaling=ROPE_SCALINGS,
        attention=ATTENTIONS,
        param_dtype=DTYPES,
        compute_dtype=DTYPES,
    )
    for field, allowed in choices.items():
        value = getattr(config, field)
        if value not in allowed:
            raise ValueError(f"model.{field}={value!r} must be one of {allowed}")


def _check_ranges(config: ModelConfig) -> None:
    for field in POSITIVE:
        if not getattr(config, field) > 0:
            raise ValueError(f"model.{field}={getattr(config, field)} must be positive")
    for field in NOT_NEGATIVE:
        if not getattr(config, field) >= 0:
            raise ValueError(
                f"model.{field}={getattr(config, field)} must not be negative; "
                "0 turns it off"
            )
    if config.rope_scaling == "none" and config.rope_scaling_factor != 1.0:
        raise ValueError(
            f"model.rope_scaling_factor={config.rope_scaling_factor} has no effect "
            f"with model.rope_scaling='none'; choose one of {ROPE_SCALINGS[1:]}"
        )
