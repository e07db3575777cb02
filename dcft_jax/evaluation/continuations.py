"""How likely a model finds tokens that continue others."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from dcft_jax.data import pack_encoded
from dcft_jax.evaluation.losses import make_eval_step, score_split
from dcft_jax.evaluation.rows import place_rows
from dcft_jax.models import ModelConfig, Params
from dcft_jax.sharding import num_parts

MIN_LENGTH = 64  # tokens of a row
LOGITS_CHUNK = 256  # positions of a row whose logits exist at once


class Continuation(NamedTuple):
    context: Sequence[int]  # at least one token
    tokens: Sequence[int]  # at least one


@dataclasses.dataclass(frozen=True)
class ContinuationScores:
    """Of N continuations."""

    nats_N: np.ndarray  # float64, minus the log-likelihood
    greedy_N: np.ndarray  # bool: each token is the most likely one
    cut_N: np.ndarray  # bool: the context lost its begin


ScoreContinuations = Callable[[Params, Sequence[Continuation]], ContinuationScores]


def make_continuation_scorer(
    model: ModelConfig,
    mesh: jax.sharding.Mesh,
    *,
    pad_id: int = 0,
    max_length: int = 2048,
    rows_per_batch: int = 8,
) -> ScoreContinuations:
    """`(params, continuations) -> scores`; call it under `jax.set_mesh(mesh)`.

    Continuations are packed: short ones share a row. Rows, what is predicted in them
    and how many share one are counted in powers of two, so few programs are compiled,
    and a scorer that is kept compiles each once.

    Args:
      max_length: tokens that the model reads at most, which is all but the last of a
        continuation; a context that is too long loses its begin.
      rows_per_batch: rounded up to what the mesh splits rows into.

    Raises:
      ValueError: (the scorer) a part is empty, or a continuation alone is too long.
    """
    model = dataclasses.replace(model, logits_chunk=model.logits_chunk or LOGITS_CHUNK)
    slots = num_parts(model.rules, "slot", mesh)
    per_slot = num_parts(model.rules, "batch", mesh)
    per_slot *= -(-rows_per_batch // (slots * per_slot))
    step = functools.cache(lambda most: make_eval_step(model, most))

    def score(
        params: Params, continuations: Sequence[Continuation]
    ) -> ContinuationScores:
        if not continuations:
            return ContinuationScores(np.zeros(0), np.zeros(0, bool), np.zeros(0, bool))
        encoded = [_encode(i, one, max_length) for i, one in enumerate(continuations)]
        longest = max(len(tokens_L) for tokens_L, _ in encoded)
        length = max(MIN_LENGTH, _power_of_two(longest))
        rows = pack_encoded(encoded, length, pad_id)
        most = min(_power_of_two(rows.max_response_tokens), length)
        segments = _power_of_two(rows.scored_NM.shape[1])
        batches = place_rows(rows, (slots, per_slot), mesh, model.rules, segments)
        scores = score_split(step(most), params, batches, len(encoded))
        total_N = [len(one.context) + len(one.tokens) for one in continuations]
        return ContinuationScores(
            scores.loss_sum_N.astype(np.float64),
            scores.wrong_N == 0,
            np.array(total_N) > max_length + 1,
        )

    return score


def _encode(
    index: int, continuation: Continuation, max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """All tokens and which of them are predicted."""
    context, tokens = continuation
    for name, part in (("context", context), ("tokens", tokens)):
        if not len(part):
            raise ValueError(
                f"continuations[{index}].{name} is empty; give it at least one token"
            )
    if len(tokens) > max_length:
        raise ValueError(
            f"continuations[{index}].tokens has {len(tokens)} tokens, more than "
            f"max_length={max_length}; raise it, or score the text in windows"
        )
    tokens_L = np.array([*context, *tokens][-max_length - 1 :], np.int32)
    mask_L = np.arange(len(tokens_L)) >= len(tokens_L) - len(tokens)
    return tokens_L, mask_L


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
