"""How likely a model finds given replies."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from dcft_jax.data import Example, Tokenizer, encode_examples, pack_examples
from dcft_jax.evaluation.losses import make_eval_step, score_split
from dcft_jax.evaluation.rows import EvalBatch, place_rows
from dcft_jax.models import ModelConfig, Params
from dcft_jax.sharding import num_parts

LENGTH_STEP = 64  # tokens; so that few lengths are compiled


@dataclasses.dataclass(frozen=True)
class Likelihoods:
    """Of N replies. nan, and 0 tokens: longer than what was allowed."""

    nats_N: np.ndarray  # float64, minus the log-likelihood, with the end of the turn
    tokens_N: np.ndarray  # int64


def score_replies(
    model: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    mesh: jax.sharding.Mesh,
    *,
    max_length: int = 2048,
    rows_per_batch: int = 8,
    track: Callable[[Iterable[EvalBatch], int], Iterable[EvalBatch]] | None = None,
) -> Likelihoods:
    """Minus the log-likelihood of the assistant messages of each example.

    Examples are packed: short ones share a row. Call under `jax.set_mesh(mesh)`.

    Args:
      max_length: tokens of an example at most; longer ones are not scored.
      rows_per_batch: rounded up to what the mesh splits rows into.
      track: wraps the batches, given their number, to show progress.
    """
    nats_N = np.full(len(examples), np.nan)
    tokens_N = np.zeros(len(examples), np.int64)
    lengths_N = np.array([len(t) for t, _ in encode_examples(examples, tokenizer)])
    fits_N = lengths_N <= max_length
    if not fits_N.any():
        return Likelihoods(nats_N, tokens_N)
    longest = int(lengths_N[fits_N].max())
    length = min(-(-longest // LENGTH_STEP) * LENGTH_STEP, max_length)
    rows = pack_examples(examples, tokenizer, length, np.flatnonzero(fits_N))
    slots = num_parts(model.rules, "slot", mesh)
    per_slot = num_parts(model.rules, "batch", mesh)
    per_slot *= -(-rows_per_batch // (slots * per_slot))
    batches: Iterable[EvalBatch] = place_rows(
        rows, (slots, per_slot), mesh, model.rules
    )
    if track is not None:
        batches = track(batches, -(-len(rows) // (slots * per_slot)))
    # In whole eights: what one row at most predicts decides what is compiled.
    most = -(-rows.max_response_tokens // 8) * 8
    scores = score_split(make_eval_step(model, most), params, batches, len(examples))
    scored_N = scores.count_N > 0
    nats_N[scored_N] = scores.loss_sum_N[scored_N]
    tokens_N[scored_N] = scores.count_N[scored_N]
    return Likelihoods(nats_N, tokens_N)
