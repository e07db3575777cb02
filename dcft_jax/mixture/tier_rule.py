"""What a rule over the difficulty tiers of abilities is, and what it is told.

Arrays are [K, T]: K abilities, T the most tiers that any of them has, easiest first. An
ability with fewer tiers has tiers of size 0, whose share is 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TierFeedback:
    """One pytree per evaluation, identical on every host.

    Arrays are float32 `[K, T]` unless said otherwise; nan means "not measured". Losses
    are per response token, in nats.
    """

    val_loss_KT: jax.Array  # on the mix-val rows of the tier, now
    val_loss_stderr_KT: jax.Array
    reference_loss_KT: jax.Array  # nothing left to gain
    initial_loss_KT: jax.Array  # before training
    progress_KT: (
        jax.Array
    )  # mean paired decrease on the same rows since the last update
    progress_stderr_KT: jax.Array
    epochs_KT: jax.Array
    observed_KT: jax.Array  # bool: nothing above is read where this is False
    step: jax.Array  # int32, optimizer steps so far


class TierRule(NamedTuple):
    """`init(size_KT) -> state`, from the train rows of each tier, 0 for no such tier;
    `update(feedback, state) -> state`; `shares(state) -> share_KT`, each row on the
    simplex. All can be jitted.
    """

    init: Callable[[jax.Array], Any]
    update: Callable[[TierFeedback, Any], Any]
    shares: Callable[[Any], jax.Array]


def unmeasured_tiers(num_abilities: int, num_tiers: int, step: int = 0) -> TierFeedback:
    """Feedback without information; fill in with `dataclasses.replace`."""
    shape = (num_abilities, num_tiers)
    nan_KT = jnp.full(shape, jnp.nan, jnp.float32)
    return TierFeedback(
        val_loss_KT=nan_KT,
        val_loss_stderr_KT=nan_KT,
        reference_loss_KT=nan_KT,
        initial_loss_KT=nan_KT,
        progress_KT=nan_KT,
        progress_stderr_KT=nan_KT,
        epochs_KT=jnp.zeros(shape, jnp.float32),
        observed_KT=jnp.zeros(shape, bool),
        step=jnp.asarray(step, jnp.int32),
    )


def normalised_sizes(size_KT: jax.Array) -> jax.Array:
    """Each tier's part of its ability, float32, rows sum to 1."""
    size_KT = jnp.asarray(size_KT, jnp.float32)
    return size_KT / jnp.sum(size_KT, axis=1, keepdims=True)


def mix_tier_floor(share_KT: jax.Array, exists_KT: jax.Array, floor: float):
    """`(1 - floor) share + floor / T_k` for the T_k tiers that ability k has."""
    num_K = jnp.sum(exists_KT, axis=1, keepdims=True)
    even_KT = exists_KT / num_K
    mixed_KT = (1.0 - floor) * share_KT + floor * even_KT
    # No rounding for an ability with one tier: it is to be as if there were no tiers.
    return jnp.where(num_K == 1, even_KT, mixed_KT)


def moving_average(
    average: jax.Array,
    count: jax.Array,
    value: jax.Array,
    known: jax.Array,
    decay: float,
) -> tuple[jax.Array, jax.Array]:
    """The average and count after one more value where `known`; else as before.

    The weight of the value is `(1 - d) / (1 - d^n)` for the n-th one: the plain mean at
    first, so that the start of the average never shows (Adam's bias correction).
    """
    count = count + known
    weight = (1.0 - decay) / (1.0 - jnp.float32(decay) ** jnp.maximum(count, 1))
    return jnp.where(known, average + weight * (value - average), average), count


def require(valid: bool, option: str, value: Any, expected: str) -> None:
    if not valid:
        raise ValueError(f"mixture.tiers.{option} is {value}, expected {expected}.")
