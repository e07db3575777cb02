"""How fast losses fall, from their history."""

import jax
import jax.numpy as jnp

from dcft_jax.mixture.history import History, known_entries


def recent_slope(history: History, window: int = 8) -> tuple[jax.Array, jax.Array]:
    """Slope of the loss over the newest entries, and its standard error.

    Ordinary least squares in the position over the last `window` entries, of which an
    ability must have at least 3; nan otherwise. In nats per unit of the positions: per
    update where they count updates. The standard error comes from the residuals, so it
    is free of the error that entries on the same rows share: that moves the level.

    Raises:
      ValueError: unless `window` is at least 3.
    """
    if window < 3:
        raise ValueError(f"window is {window}, expected at least 3.")
    entry_T = jnp.arange(len(history.loss_TK))
    recent_T = (entry_T < history.num_entries) & (
        entry_T >= history.num_entries - window
    )
    used_TK = known_entries(history) & recent_T[:, None]
    count_K = jnp.sum(used_TK, axis=0)
    position_TK = _centred(history.position_TK, used_TK)
    loss_TK = _centred(history.loss_TK, used_TK)
    square_K = jnp.sum(position_TK**2, axis=0)
    enough_K = (count_K >= 3) & (square_K > 0)
    square_K = jnp.where(enough_K, square_K, 1.0)
    slope_K = jnp.sum(position_TK * loss_TK, axis=0) / square_K
    residual_TK = loss_TK - slope_K * position_TK
    variance_K = jnp.sum(residual_TK**2, axis=0) / jnp.maximum(count_K - 2, 1)
    stderr_K = jnp.sqrt(variance_K / square_K)
    return (
        jnp.where(enough_K, slope_K, jnp.nan),
        jnp.where(enough_K, stderr_K, jnp.nan),
    )


def _centred(value_TK, used_TK):
    count_K = jnp.maximum(jnp.sum(used_TK, axis=0), 1)
    value_TK = jnp.where(used_TK, value_TK, 0.0)
    mean_K = jnp.sum(value_TK, axis=0) / count_K
    return jnp.where(used_TK, value_TK - mean_K, 0.0)
