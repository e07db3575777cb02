"""What the base model shows of tasks and abilities: losses, gradients, states.

Two passes over a few dozen examples of each. The first gives losses, exact match and
the gradients of a part of the parameters, the second the hidden states. Every group's
examples are split in two halves: products of gradients of different halves have no
noise bias (see `dcft_jax.conflict.noise`), so cosines do not shrink with the sample.

Axes: G groups (tasks and abilities), S = 2 G halves, R rows of a half, M examples of a
row, D width.
"""

import dataclasses
import hashlib
import io
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax.conflict import ability_gramian, slot_gramian, slot_noise
from dcft_jax.data import ROW_FIELDS, Example, Rows, Tokenizer, pack_examples
from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.data.rows import hash_rows
from dcft_jax.meta.segments import segment_sums
from dcft_jax.models import (
    STACKED,
    ModelConfig,
    combine,
    hidden,
    response_targets,
    score_responses,
    split,
)

MIN_SUPPORT, MAX_SUPPORT = 16, 128
TOGETHER = 2  # groups whose gradients are computed at a time


class Measured(NamedTuple):
    """Of G groups, float32.

    Attributes:
        loss_G: nats per response token.
        accuracy_G: exact match, teacher-forced; nan without scored examples.
        gram_GG: inner products of the mean gradients; noisy on the diagonal.
        signal_G: squared norms without noise; may be negative.
        stderr_GG: standard errors of the inner products.
        hidden_GD: mean final hidden state over the tokens that predict a response.
        prompt_tokens_G, response_tokens_G: means per example.
        examples_G: how many.
    """

    loss_G: np.ndarray
    accuracy_G: np.ndarray
    gram_GG: np.ndarray
    signal_G: np.ndarray
    stderr_GG: np.ndarray
    hidden_GD: np.ndarray
    prompt_tokens_G: np.ndarray
    response_tokens_G: np.ndarray
    examples_G: np.ndarray


def pack_halves(
    examples: Sequence[Example], tokenizer: Tokenizer, seq_len: int
) -> tuple[Rows, Rows]:
    """Rows of the examples at even and at odd places.

    Raises:
      ValueError: fewer than `MIN_SUPPORT` or more than `MAX_SUPPORT` examples.
    """
    if not MIN_SUPPORT <= len(examples) <= MAX_SUPPORT:
        raise ValueError(
            f"a task is described by {MIN_SUPPORT} to {MAX_SUPPORT} examples, got "
            f"{len(examples)}; give more, or a sample of them"
        )
    even, odd = (
        pack_examples(examples[start::2], tokenizer, seq_len) for start in range(2)
    )
    return even, odd


def measure(
    model: ModelConfig,
    params: Any,
    groups: Sequence[tuple[Rows, Rows]],
    max_predicted: int | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> Measured:
    """Passes the groups through the base model, or reads what that gave before.

    Args:
      model: of the base; it computes in float32 here.
      params: all of the base's. Gradients are of its adapters if it has some, else of
        the last block and the final norm.
      groups: the two halves of each, rows of one length.
      max_predicted: see `score_responses`; at least what the rows have.
      cache_dir: where results are kept, by the content of all the above.

    Raises:
      ValueError: no group, or rows with more response tokens than `max_predicted`.
    """
    if not groups:
        raise ValueError("there is no group to measure")
    most = max(rows.max_response_tokens for halves in groups for rows in halves)
    if max_predicted is not None and most > max_predicted:
        raise ValueError(
            f"max_predicted={max_predicted}, but a row has {most} response tokens"
        )
    path = None
    if cache_dir is not None:
        name = f"{_key(model, params, groups)}.npz"
        path = Path(cache_dir) / "embeddings" / name
        if path.is_file():
            with np.load(path, allow_pickle=False) as file:
                return Measured(**file)
    found = _measure(model, params, groups, max_predicted)
    if path is not None:
        buffer = io.BytesIO()
        np.savez(buffer, **found._asdict())
        atomic_write(path, buffer.getvalue())
    return found


def _key(model: ModelConfig, params: Any, groups: Sequence[tuple[Rows, Rows]]) -> str:
    digest = hashlib.blake2b(repr((1, model)).encode(), digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.ascontiguousarray(leaf)
        about = (jax.tree_util.keystr(path), str(array.dtype), array.shape)
        digest.update(repr(about).encode() + array.tobytes())
    for halves in groups:
        digest.update("".join(map(hash_rows, halves)).encode())
    return digest.hexdigest()


def _measure(model, params, groups, max_predicted) -> Measured:
    model = dataclasses.replace(model, compute_dtype="float32")
    rows_GSRL = _stack(groups)
    sums = _passes(model, max_predicted, params, rows_GSRL)
    sums = {name: np.asarray(x) for name, x in sums.items()}
    count_G, scored_G = sums["count"].sum(axis=1), sums["scored"].sum(axis=1)
    both = [(np.concatenate([h.segments_NL for h in pair]), pair) for pair in groups]
    tokens_G = np.array([(segments_RL > 0).sum() for segments_RL, _ in both])
    examples_G = np.array([sum(h.num_examples for h in pair) for _, pair in both])
    return Measured(
        loss_G=(sums["loss"].sum(axis=1) / count_G).astype(np.float32),
        accuracy_G=np.where(
            scored_G > 0, sums["right"].sum(axis=1) / np.maximum(scored_G, 1), np.nan
        ).astype(np.float32),
        gram_GG=sums["gram"],
        signal_G=sums["signal"],
        stderr_GG=sums["stderr"],
        hidden_GD=(sums["hidden"].sum(axis=1) / count_G[:, None]).astype(np.float32),
        prompt_tokens_G=((tokens_G - count_G) / examples_G).astype(np.float32),
        response_tokens_G=(count_G / examples_G).astype(np.float32),
        examples_G=examples_G.astype(np.float32),
    )


def _stack(groups: Sequence[tuple[Rows, Rows]]) -> dict[str, np.ndarray]:
    """Arrays [G, 2, R, ...] with as many rows and examples as the largest has."""
    halves = [rows for pair in groups for rows in pair]
    num_rows = max(map(len, halves))
    most = max(rows.scored_NM.shape[1] for rows in halves)

    def pad(x_NL: np.ndarray, width: int) -> np.ndarray:
        missing = (num_rows - len(x_NL), width - x_NL.shape[1])
        return np.pad(x_NL, [(0, size) for size in missing])

    names = {name: f"{name}_NL" for name in ROW_FIELDS} | {"scored": "scored_NM"}
    return {
        name: np.stack(
            [
                pad(x_NL, most if name == "scored" else x_NL.shape[1])
                for x_NL in (getattr(rows, field) for rows in halves)
            ]
        ).reshape(len(groups), 2, num_rows, -1)
        for name, field in names.items()
    }


@partial(jax.jit, static_argnums=(0, 1))
def _passes(
    model: ModelConfig, max_predicted: int | None, params: Any, rows_GSRL: Any
) -> dict[str, jax.Array]:
    """Sums of each half [G, 2, ...], and what the Gramian of the halves gives."""
    part = jax.tree.map(lambda x: x.astype(jnp.float32), gradient_part(params))

    def loss(part: Any, rows: dict[str, jax.Array]):
        whole = with_part(params, part)
        nll_RL, correct_RL, mask_RL = score_responses(
            model, whole, rows, max_predicted=max_predicted
        )
        return jnp.sum(nll_RL), (correct_RL, mask_RL)

    def half(rows: dict[str, jax.Array]) -> dict[str, Any]:
        (nll, (correct_RL, mask_RL)), gradient = jax.value_and_grad(loss, has_aux=True)(
            part, rows
        )
        most = rows["scored"].shape[-1]
        wrong_RM = segment_sums(mask_RL & ~correct_RL, rows["segments"], most)
        return dict(
            loss=nll,
            count=jnp.sum(mask_RL, dtype=jnp.float32),
            right=jnp.sum((wrong_RM == 0) & rows["scored"], dtype=jnp.float32),
            scored=jnp.sum(rows["scored"], dtype=jnp.float32),
            hidden=_hidden_sum(model, params, rows),
            gradient=gradient,
        )

    # JAX cannot join the gradients of groups that are left over to those of the others
    # if a mesh axis splits a single head of keys: none may be left over.
    left_over = rows_GSRL["tokens"].shape[0] % TOGETHER
    together = 1 if left_over else TOGETHER
    halves = jax.lax.map(jax.vmap(half), rows_GSRL, batch_size=together)
    gradient = halves.pop("gradient")
    gradient_S = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), gradient)
    num_groups = halves["count"].shape[0]
    group_S = jnp.repeat(jnp.arange(num_groups), 2)
    gram_SS, count_S = slot_gramian(gradient_S), halves["count"].reshape(-1)
    gram_GG, _, share_GS = ability_gramian(gram_SS, count_S, group_S, num_groups)
    noise = slot_noise(gram_SS, count_S, share_GS)
    return halves | dict(gram=gram_GG, signal=noise.signal_K, stderr=noise.stderr_KK)


def _hidden_sum(model: ModelConfig, params: Any, rows: dict[str, jax.Array]):
    """Over the tokens that predict a response, float32 [D]."""
    x_RLD = hidden(model, params, rows["tokens"], rows["segments"], rows["positions"])
    _, mask_RL = response_targets(rows["tokens"], rows["loss_mask"], rows["segments"])
    return jnp.sum(jnp.where(mask_RL[..., None], x_RLD, 0.0), axis=(0, 1))


def gradient_part(params: Any) -> Any:
    """The parameters whose gradients are compared: adapters, or the last layer."""
    trained, frozen = split(params)
    if frozen:
        return trained
    last = jax.tree.map(lambda x: x[-1], params[STACKED])
    return {STACKED: last, "final_norm": params["final_norm"]}


def with_part(params: Any, part: Any) -> Any:
    """The parameters with that part exchanged."""
    if split(params)[1]:
        return combine(params, part)

    def set_last(x: jax.Array, last: jax.Array) -> jax.Array:
        return x.at[-1].set(last.astype(x.dtype))

    stack = jax.tree.map(set_last, params[STACKED], part[STACKED])
    return params | {STACKED: stack, "final_norm": part["final_norm"]}
