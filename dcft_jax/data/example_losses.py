"""The loss of a model on each example, computed once and kept on disk."""

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.data.example import Example
from dcft_jax.data.tokenizer import Tokenizer


class LossScorer(NamedTuple):
    """A model that says how hard examples are.

    `loss(examples, tokenizer)`: the loss per response token of each, in nats, in their
    order. `identity`: names all that `loss` depends on besides its arguments, such as a
    hash of the parameters and the longest sequence; results are kept under it.
    """

    identity: str
    loss: Callable[[Sequence[Example], Tokenizer], np.ndarray]


def example_losses(
    scorer: LossScorer,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    cache_dir: str | os.PathLike,
) -> np.ndarray:
    """Loss per response token of each example, float32, from the cache if it is there.

    Kept in `cache_dir/losses`, by the content of the examples, the tokenizer and the
    identity of the scorer.

    Raises:
        ValueError: the scorer gives another number of losses, or one not finite.
    """
    key = _key(scorer.identity, examples, tokenizer)
    path = Path(cache_dir) / "losses" / f"{key}.npy"
    if not path.is_file():
        loss_N = np.asarray(scorer.loss(examples, tokenizer), np.float32)
        _check(scorer.identity, loss_N, len(examples))
        _save(loss_N, path)
    return np.load(path)


def _key(identity: str, examples: Sequence[Example], tokenizer: Tokenizer) -> str:
    head = repr((identity, tokenizer.content_hash)).encode()
    key = hashlib.blake2b(head, digest_size=16)
    for example in examples:
        key.update(repr(example.messages).encode())
    return key.hexdigest()


def _check(identity: str, loss_N: np.ndarray, num_examples: int) -> None:
    if loss_N.shape != (num_examples,) or not np.all(np.isfinite(loss_N)):
        raise ValueError(
            f"the scorer {identity!r} gave losses of shape {loss_N.shape}, "
            f"{int(np.sum(~np.isfinite(loss_N)))} of them not finite, for "
            f"{num_examples} examples; each needs one finite loss"
        )


def _save(loss_N: np.ndarray, path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, loss_N)
    atomic_write(path, buffer.getvalue())
