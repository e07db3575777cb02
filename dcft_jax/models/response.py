"""Loss and correctness of the response tokens of packed rows."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from dcft_jax.models.config import ModelConfig
from dcft_jax.models.decoder import Params, Tap, apply
from dcft_jax.models.loss import token_correct, token_nll


def score_responses(
    config: ModelConfig,
    params: Params,
    rows: Mapping[str, jax.Array],
    tap: Tap | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Teacher-forced predictions of the response tokens.

    Args:
      rows: [B, L] arrays `tokens`, `loss_mask`, `segments`, `positions`, as the data
        room packs them; `loss_mask` is true where the token itself is trained.
      tap: see `Tap`.

    Returns:
      nll_BL: float32 nats, 0 where nothing is predicted;
      correct_BL: bool, the target is the most likely token;
      mask_BL: bool, position i predicts a response token at i + 1.
    """
    targets_BL, mask_BL = response_targets(
        rows["tokens"], rows["loss_mask"], rows["segments"]
    )
    logits_BLV = apply(
        config, params, rows["tokens"], rows["segments"], rows["positions"], tap
    )
    nll_BL = jnp.where(mask_BL, token_nll(logits_BLV, targets_BL), 0.0)
    return nll_BL, token_correct(logits_BLV, targets_BL), mask_BL


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
