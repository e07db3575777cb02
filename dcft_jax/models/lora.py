"""Low-rank adapters on frozen projections (LoRA, arXiv:2106.09685).

An adapted projection computes `x W + s x A B`: W is frozen, A [inputs, r] and B
[r, outputs] are trained, and s is alpha / r, or alpha / sqrt(r) for rank-stabilised
LoRA (arXiv:2312.03732). The parameters of a decoder are one tree; `split` tells the
trained part from the frozen one by the names of the leaves, `combine` puts them back.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dcft_jax.models.quantized import dense

TARGETS = ("query", "key", "value", "out", "gate", "up", "down")
DOWN, UP = "lora_a", "lora_b"  # names of the leaves A and B


@dataclasses.dataclass(frozen=True)
class LoRA:
    """The fields of `config.lora`. Raises ValueError if one is out of range."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    rank_stabilised: bool

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"lora.rank={self.rank} must be at least 1")
        if not self.alpha > 0:
            raise ValueError(f"lora.alpha={self.alpha} must be positive")
        unknown = sorted(set(self.targets) - set(TARGETS))
        if unknown or not self.targets:
            raise ValueError(f"lora.targets={self.targets} must be some of {TARGETS}")

    @property
    def scale(self) -> float:
        rank = math.sqrt(self.rank) if self.rank_stabilised else self.rank
        return self.alpha / rank

    @classmethod
    def from_config(cls, lora: Mapping[str, Any]) -> "LoRA | None":
        """None for rank 0: all parameters are trained."""
        if lora["rank"] == 0:
            return None
        return cls(**{**lora, "targets": tuple(lora["targets"])})


def split(params: Any) -> tuple[Any, Any]:
    """(trained, frozen): the adapters and the rest, or everything and nothing."""
    adapters = _where(params, lambda name: name in (DOWN, UP))
    if not adapters:
        return params, {}
    return adapters, _where(params, lambda name: name not in (DOWN, UP))


def combine(params: Any, others: Any) -> Any:
    """Two nested dicts as one; where both have a leaf, that of `others`."""
    if not isinstance(params, Mapping) or not isinstance(others, Mapping):
        return others
    merged = dict(params)
    for name, other in others.items():
        merged[name] = combine(params[name], other) if name in params else other
    return merged


def select(params: Any, like: Any) -> Any:
    """The part of a nested dict at the places that `like` has."""
    if not isinstance(like, Mapping):
        return params
    return {name: select(params[name], other) for name, other in like.items()}


def merge(lora: LoRA, params: Any, dtype: Any = None) -> Any:
    """Parameters without adapters: every adapted kernel is `W + s A B`, computed in
    float32 and rounded once, to `dtype` or to that of W, or of its scales if it is
    quantised; no kernel of the result is.
    """
    if not isinstance(params, Mapping):
        return dense(params, params.dtype)
    if DOWN not in params:
        return {name: merge(lora, part, dtype) for name, part in params.items()}
    kernel, down, up = (params[name] for name in ("kernel", DOWN, UP))
    # [N, inputs..., r] and [N, r, outputs...], N the layer axis of the stack.
    delta = jax.lax.dot_general(
        down.astype(jnp.float32),
        up.astype(jnp.float32),
        (((down.ndim - 1,), (1,)), ((0,), (0,))),
        precision=jax.lax.Precision.HIGHEST,
    )
    merged = dense(kernel, jnp.float32) + lora.scale * delta
    rest = {name: x for name, x in params.items() if name not in ("kernel", DOWN, UP)}
    return {"kernel": merged.astype(dtype or kernel.dtype), **rest}


def _where(params: Any, wanted: Callable[[str], bool]) -> Any:
    """The leaves whose own name is wanted, without dicts that would be empty."""
    found = {}
    for name, part in params.items():
        if isinstance(part, Mapping):
            inner = _where(part, wanted)
            if inner:
                found[name] = inner
        elif wanted(name):
            found[name] = part
    return found
