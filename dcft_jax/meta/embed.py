"""What the base model shows of a task and of the abilities: the task embedding.

Two passes over a few dozen examples of each. The first gives losses, exact match and
the gradients of a part of the parameters, the second the hidden states. Every group's
examples are split in two halves: products of gradients of different halves have no
noise bias (see `dcft_jax.conflict.noise`), so cosines do not shrink with the sample.

Axes: G groups (tasks and abilities), S = 2 G halves, R rows of a half, M examples of a
row, D width; of features see `dcft_jax.meta.features`.
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
from dcft_jax.meta.features import Features, check
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
# A squared norm is never taken for less than this share of its noisy estimate.
MIN_SIGNAL = 0.05
TOGETHER = 4  # groups whose gradients are computed at a time


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

    halves = jax.lax.map(jax.vmap(half), rows_GSRL, batch_size=TOGETHER)
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


def make_features(
    measured: Measured,
    task: int,
    abilities: Sequence[int],
    size_K: np.ndarray,
    budget: int,
    parameters: int,
    seq_len: int,
) -> Features:
    """Of one of the groups next to others.

    Args:
      task, abilities: indices of groups.
      size_K: rows of each ability that there are to train on.
      budget: tokens that will be trained on, padding included.
      parameters: of the model.
      seq_len: tokens of a row.

    Raises:
      ValueError: another number of sizes than abilities, or a size below 1.
    """
    k, t = list(abilities), task
    size_K = np.asarray(size_K, np.float64)
    cosine_GG, stderr_GG, norm_G = _cosines(measured)
    kernel_GG = _centred_cosines(measured.hidden_GD[[t, *k]])
    loss_G, prompt_G = measured.loss_G, measured.prompt_tokens_G
    reply_G = measured.response_tokens_G
    task_G = [
        *(loss_G[t], measured.accuracy_G[t], np.log(prompt_G[t]), np.log(reply_G[t])),
        *(np.log(measured.examples_G[t]), np.log(budget), np.log(parameters)),
    ]
    ability_FK = [
        *(loss_G[k], np.log(loss_G[k] / loss_G[t])),
        *(cosine_GG[t, k], stderr_GG[t, k], measured.gram_GG[t, k] / norm_G[t] ** 2),
        *(kernel_GG[0, 1:], np.log(prompt_G[k] / prompt_G[t])),
        *(np.log(reply_G[k] / reply_G[t]), np.log(size_K / size_K.sum())),
        np.log(budget / (size_K * seq_len)),
    ]
    alignment_KK = cosine_GG[np.ix_(k, k)]
    np.fill_diagonal(alignment_KK, 1.0)
    pair_PKK = [alignment_KK, kernel_GG[1:, 1:]]
    return check(
        Features(
            np.array(task_G, np.float32),
            np.array(ability_FK, np.float32).T,
            np.moveaxis(np.array(pair_PKK, np.float32), 0, -1),
            size_K.astype(np.float32),
        )
    )


def _cosines(measured: Measured) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Without noise, [G, G]; their standard errors; the norms [G]."""
    noisy_G = np.diagonal(measured.gram_GG)
    norm_G = np.sqrt(np.fmax(measured.signal_G, MIN_SIGNAL * noisy_G))
    norm_G = np.where(norm_G > 0, norm_G, np.nan)
    norm_GG = np.outer(norm_G, norm_G)
    cosine_GG = np.clip(measured.gram_GG / norm_GG, -1.0, 1.0)
    return cosine_GG, measured.stderr_GG / norm_GG, norm_G


def _centred_cosines(x_GD: np.ndarray) -> np.ndarray:
    x_GD = x_GD.astype(np.float64) - x_GD.mean(axis=0)
    norm_G = np.linalg.norm(x_GD, axis=1)
    norm_G = np.where(norm_G > 0, norm_G, np.nan)
    return (x_GD @ x_GD.T) / np.outer(norm_G, norm_G)


def embed(
    model: ModelConfig,
    params: Any,
    support: Sequence[Example],
    abilities: Sequence[Sequence[Example]],
    tokenizer: Tokenizer,
    seq_len: int,
    size_K: np.ndarray,
    budget: int,
    cache_dir: str | os.PathLike | None = None,
) -> Features:
    """The embedding of one task.

    Args:
      model, params: the base.
      support: 16 to 128 examples of the task.
      abilities: as many mix-val examples of each ability.
      size_K, budget: see `make_features`.
      cache_dir: see `measure`.

    Raises:
      ValueError: too few or too many examples; see `make_features`.
    """
    groups = [pack_halves(x, tokenizer, seq_len) for x in (support, *abilities)]
    measured = measure(model, params, groups, cache_dir=cache_dir)
    parameters = sum(x.size for x in jax.tree.leaves(params))
    others = range(1, len(groups))
    return make_features(measured, 0, others, size_K, budget, parameters, seq_len)
