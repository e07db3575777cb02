"""The task embedding: features of a task next to the abilities, from the base model.

Axes: see `dcft_jax.meta.measure` and `dcft_jax.meta.features`.
"""

import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dcft_jax.data import Example, Tokenizer
from dcft_jax.meta.features import Features, check
from dcft_jax.meta.measure import Measured, measure, pack_halves
from dcft_jax.models import ModelConfig

# A squared norm is never taken for less than this share of its noisy estimate.
MIN_SIGNAL = 0.05


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
    if size_K.shape != (len(k),) or not np.all(size_K >= 1):
        raise ValueError(
            f"size_K={size_K.tolist()} must be {len(k)} numbers of rows, one for each "
            "ability"
        )
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
