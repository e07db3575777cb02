"""How far the predictions of a model that was written are from those of the one meant.

The rows are a few fixed conversations in the chat format of the model, and random
tokens, which reach what no conversation does. Activations are float32 in both models
and products in highest precision, so that only the parameters differ.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax import sharding
from dcft_jax.data import Tokenizer
from dcft_jax.models import ModelConfig, Params, apply

CONVERSATIONS = (
    (("user", "Calculate 57 + 33."), ("assistant", "90")),
    (
        ("user", "Write a function that reverses a list.\n\nIt takes `xs`."),
        ("assistant", "def reverse(xs):\n    return xs[::-1]\n"),
        ("user", "And how do you say “naïve façade” in 日本語? 😀"),
        ("assistant", "I do not know; ask someone who does."),
    ),
)
LENGTH, RANDOM_ROWS = 96, 2


class Divergence(NamedTuple):
    """KL(meant || written) in nats per token, over so many tokens."""

    mean: float
    max: float
    tokens: int


# Mean and greatest divergence that rounding to a dtype may explain: some thirty times
# that of SmolLM2-135M, whose float32 weights in bfloat16 give 1.3e-4 and 1.2e-3, in
# float16 6e-6 and 3e-5. In float32 only merging rounds.
LIMITS = {
    "float32": (1e-6, 1e-4),
    "float16": (2e-4, 2e-3),
    "bfloat16": (5e-3, 5e-2),
}


def check_rows(
    tokenizer: Tokenizer, config: ModelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """`tokens_BL` and which of them count; rows fill the mesh of `jax.set_mesh`."""
    chat = [tokenizer.chat.encode(c)[0][:LENGTH] for c in CONVERSATIONS]
    parts = sharding.num_parts(config.rules, "batch")
    num_rows = -(-(len(chat) + RANDOM_ROWS) // parts) * parts
    rng = np.random.default_rng(0)
    # Of the tokenizer: rows of the embeddings beyond it are never trained.
    tokens_BL = rng.integers(0, tokenizer.vocab_size, (num_rows, LENGTH), np.int32)
    known_BL = np.ones(tokens_BL.shape, bool)
    for row, tokens_L in enumerate(chat):
        tokens_BL[row, : len(tokens_L)] = tokens_L
        known_BL[row, len(tokens_L) :] = False
    return tokens_BL, known_BL


def predictions(
    config: ModelConfig, params: Params, tokens_BL: np.ndarray
) -> jax.Array:
    """Log-probabilities of the next token, float32 `[B, L, V]`."""
    config = dataclasses.replace(config, compute_dtype="float32", remat="none")
    with jax.default_matmul_precision("highest"):
        return _log_probabilities(config, params, tokens_BL)


@functools.partial(jax.jit, static_argnums=0)
def _log_probabilities(config, params, tokens_BL):
    return jax.nn.log_softmax(apply(config, params, tokens_BL), axis=-1)


def divergence(
    meant_BLV: jax.Array, written_BLV: jax.Array, known_BL: np.ndarray
) -> Divergence:
    """Of log-probabilities. Where nothing is a number, so is the divergence."""
    kl_BL = sharding.on_host(_kl(meant_BLV, written_BLV))[known_BL]
    return Divergence(float(kl_BL.mean()), float(kl_BL.max()), int(kl_BL.size))


@jax.jit
def _kl(meant_BLV, written_BLV):
    # The terms q - p sum to zero. With them no term is negative, and what rounding
    # makes of nearly equal logits is of second order.
    difference_BLV = written_BLV - meant_BLV
    excess_BLV = jnp.expm1(difference_BLV) - difference_BLV
    return jnp.sum(jnp.exp(meant_BLV) * excess_BLV, axis=-1)


def require_close(found: Divergence, dtype: str, what: str) -> None:
    """Raises ValueError if rounding to `dtype` does not explain the divergence."""
    limits = LIMITS[dtype]
    # Written so that nan is refused.
    if not all(v <= limit for v, limit in zip(found[:2], limits, strict=True)):
        raise ValueError(
            f"{what}: predictions differ from those of the run by {found.mean:.2g} "
            f"nats per token (mean of {found.tokens}; at most {found.max:.2g}), but "
            f"{dtype} explains {limits[0]:g} (at most {limits[1]:g}) only"
        )


def require_same(meant: Params, written: Params, what: str) -> None:
    """Raises ValueError unless all parameters are the same, bit by bit."""
    pairs = zip(_named(meant), _named(written), strict=True)
    wrong = [
        name for (name, a), (other, b) in pairs if name != other or not _same(a, b)
    ]
    if wrong:
        raise ValueError(f"{what}: {_some(wrong)} read back other than written")


def _named(params: Params) -> list[tuple[str, jax.Array]]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [("/".join(key.key for key in path), leaf) for path, leaf in leaves]


def _same(a: jax.Array, b: jax.Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(jnp.all(a == b))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" and others" if len(names) > 5 else "")
