"""Loss and correctness of the response tokens of packed rows.

Axes: P predicted tokens of a row, at most; the others as in layers.py.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from dcft_jax.models.config import ModelConfig
from dcft_jax.models.decoder import Params, Tap, hidden, mark, unembed
from dcft_jax.models.loss import token_correct, token_nll


def score_responses(
    config: ModelConfig,
    params: Params,
    rows: Mapping[str, jax.Array],
    tap: Tap | None = None,
    max_predicted: int | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Teacher-forced predictions of the response tokens.

    Logits are computed where a response token is predicted and nowhere else, and
    `config.logits_chunk` such positions of each row at a time: with a large vocabulary
    they would otherwise take most of the time and memory of a step on short responses.

    Args:
      rows: [B, L] arrays `tokens`, `loss_mask`, `segments`, `positions`, as the data
        room packs them; `loss_mask` is true where the token itself is trained.
      tap: see `Tap`.
      max_predicted: response tokens that a row has at most; None: L. The loss of a row
        with more is nan.

    Returns:
      nll_BL: float32 nats, 0 where nothing is predicted;
      correct_BL: bool, the target is the most likely token; False where none is;
      mask_BL: bool, position i predicts a response token at i + 1.
    """
    targets_BL, mask_BL = response_targets(
        rows["tokens"], rows["loss_mask"], rows["segments"]
    )
    params = mark(params, tap)
    x_BLD = hidden(
        config, params, rows["tokens"], rows["segments"], rows["positions"], tap
    )
    length = mask_BL.shape[1]
    if max_predicted is None or max_predicted >= length:
        nll_BL, correct_BL = _score(config, params, x_BLD, targets_BL)
        return jnp.where(mask_BL, nll_BL, 0.0), correct_BL & mask_BL, mask_BL
    # The positions with a loss come first, in their order.
    order_BP = jnp.argsort(~mask_BL, axis=1, stable=True)[:, :max_predicted]
    nll_BP, correct_BP = _score(
        config, params, _take(x_BLD, order_BP), _take(targets_BL, order_BP)
    )
    # And back: the n-th of them was put at n.
    rank_BL = jnp.cumsum(mask_BL, axis=1) - 1
    fits_BL = rank_BL[:, -1:] < max_predicted
    rank_BL = jnp.clip(rank_BL, 0, max_predicted - 1)
    nll_BL = jnp.where(fits_BL, _take(nll_BP, rank_BL), jnp.nan)
    correct_BL = _take(correct_BP, rank_BL)
    return jnp.where(mask_BL, nll_BL, 0.0), correct_BL & mask_BL, mask_BL


def _score(
    config: ModelConfig, params: Params, x_BPD: jax.Array, targets_BP: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Loss and correctness of every position, by chunks."""

    def chunk(x_BCD: jax.Array, targets_BC: jax.Array):
        logits_BCV = unembed(config, params, x_BCD)
        return token_nll(logits_BCV, targets_BC), token_correct(logits_BCV, targets_BC)

    number, size = targets_BP.shape[1], config.logits_chunk
    if not size or size >= number:
        return chunk(x_BPD, targets_BP)
    num_chunks = -(-number // size)
    padding = num_chunks * size - number

    def split(x_BP: jax.Array) -> jax.Array:
        rest = x_BP.shape[2:]
        x_BP = jnp.pad(x_BP, [(0, 0), (0, padding), *[(0, 0)] * len(rest)])
        return jnp.moveaxis(x_BP.reshape(-1, num_chunks, size, *rest), 1, 0)

    # One after the other and recomputed in the backward pass: no more than one chunk
    # of logits exists at any time.
    recomputed = jax.checkpoint(lambda xs: chunk(*xs))
    scores_NBC = jax.lax.map(recomputed, (split(x_BPD), split(targets_BP)))
    nll_BP, correct_BP = (
        jnp.moveaxis(x_NBC, 0, 1).reshape(-1, num_chunks * size)[:, :number]
        for x_NBC in scores_NBC
    )
    return nll_BP, correct_BP


def _take(x_BL: jax.Array, index_BP: jax.Array) -> jax.Array:
    """`x[b, index[b, p]]` (and further axes), laid out as x is."""

    def row(x_L, index_P):
        return x_L.at[index_P].get(mode="promise_in_bounds")

    return jax.vmap(row)(x_BL, index_BP)


def response_targets(
    tokens_BL: jax.Array, loss_mask_BL: jax.Array, segments_BL: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Shifts by one: position i predicts token i + 1 of the same example.

    Returns:
      targets_BL int32, and mask_BL bool: true where the loss counts.
    """

    def next_token(x_BL: jax.Array) -> jax.Array:
        return jnp.concatenate([x_BL[:, 1:], jnp.zeros_like(x_BL[:, :1])], axis=1)

    same_example_BL = (next_token(segments_BL) == segments_BL) & (segments_BL > 0)
    mask_BL = next_token(loss_mask_BL.astype(bool)) & same_example_BL
    return next_token(tokens_BL), mask_BL
