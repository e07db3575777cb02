"""Signals: what a rule climbs. Pure functions `Feedback -> signal_K`.

A signal is high where more of an ability is wanted, and comparable across abilities:
1 is about "everything there is to learn". nan means "no information". Raw loss is
none: it would chase the ability with the highest entropy for ever.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dcft_jax.mixture.feedback import Feedback
from dcft_jax.mixture.rule import GRAMIAN, TRANSFER

# An ability that starts this close to its reference, in nats or in standard errors, has
# nothing to learn that the loss could show; dividing by less would turn noise into a
# signal, and the weight would follow an ability that is all entropy.
MIN_RANGE = 0.05
MIN_RANGE_STDERR = 10.0


def normalised_gap(feedback: Feedback) -> jax.Array:
    """What is left to learn, as a share of what there was.

    `max(0, (val - reference) / (initial - reference))`: 1 at the start, 0 at the
    reference, above 1 if the ability got worse. A gap g within its standard error e
    counts as none: it is multiplied by `max(0, 1 - e^2 / g^2)`. No information where
    the reference is unknown: the gap to zero loss would be the entropy of the data.
    Velocitune (arXiv:2411.14318) uses the same ratio, clipped at 1.
    """
    gap_K = feedback.val_loss_K - feedback.reference_loss_K
    share_K = _share(gap_K, feedback.val_loss_stderr_K, feedback)
    return jnp.maximum(share_K, 0.0)  # nan stays nan


def paired_progress(feedback: Feedback) -> jax.Array:
    """What the last interval taught, as a share of what there was.

    `p / (initial - reference)` with p the mean decrease of the loss of the same mix-val
    rows since the last update; an unknown reference counts as 0 here. Progress within
    its standard error e counts as none: it is multiplied by `max(0, 1 - e^2 / p^2)`.
    Negative when the ability got worse.
    """
    return _share(feedback.progress_K, feedback.progress_stderr_K, feedback)


def improvement_rate(feedback: Feedback) -> jax.Array:
    """What an update teaches now, as a share of what there was.

    `-slope / (initial - reference)` with the slope of the mix-val loss over the recent
    updates (`recent_slope`): `paired_progress` from more than two evaluations. An
    unknown reference counts as 0, and a slope within its standard error as none, as
    there. The rate of improvement that GRAPE compares (arXiv:2505.20380) is relative
    to the loss, entropy included.
    """
    return _share(-feedback.slope_K, feedback.slope_stderr_K, feedback)


def accuracy(feedback: Feedback) -> jax.Array:
    """What is left of an accuracy: `1 - accuracy`; nan where it was not measured."""
    return jnp.where(feedback.observed_K, 1.0 - feedback.accuracy_K, jnp.nan)


def gradient_alignment(feedback: Feedback) -> jax.Array:
    """How much training on k lowers the mix-val losses of all, whatever its size.

    The mean over the abilities j of `<v_j, g_k> / (|g_j| |g_k|)`, with v_j the mix-val
    gradient, g_k the train gradient, and the norms freed of noise; clipped to [-1, 1].
    To first order a step down g_k lowers the loss of j by `<v_j, g_k>`. Divided by
    |g_k| it is what a step of fixed length does: without that the ability with the
    largest gradients would win by their size, which counts in the update already.
    Divided by |g_j| no ability has more of a say because its loss has a larger scale;
    |g_j| stands for |v_j|, whose noise nobody measures.

    nan where k or all others were not measured, or the gradient is all noise.
    """
    square_K = jnp.diagonal(feedback.gram_KK)
    known_K = feedback.observed_K & (square_K > 0) & jnp.isfinite(square_K)
    norm_K = jnp.sqrt(jnp.where(known_K, square_K, 1.0))
    cosine_KK = feedback.transfer_KK / norm_K / norm_K[:, None]
    used_KK = known_K & known_K[:, None] & jnp.isfinite(cosine_KK)
    cosine_KK = jnp.clip(jnp.where(used_KK, cosine_KK, 0.0), -1.0, 1.0)
    count_K = jnp.sum(used_KK, axis=0)
    mean_K = jnp.sum(cosine_KK, axis=0) / jnp.maximum(count_K, 1)
    return jnp.where(count_K > 0, mean_K, jnp.nan)


SIGNALS: dict[str, Callable[[Feedback], jax.Array]] = {
    "normalised_gap": normalised_gap,
    "paired_progress": paired_progress,
    "improvement_rate": improvement_rate,
    "accuracy": accuracy,
    "gradient_alignment": gradient_alignment,
}

# What a signal must have measured beyond an evaluation (see `NEEDS`), by its name.
NEEDS_OF_SIGNALS: dict[str, frozenset[str]] = {
    "gradient_alignment": frozenset({GRAMIAN, TRANSFER})
}


def learnable_range(feedback: Feedback) -> jax.Array:
    """What there was to learn, in nats, at least `MIN_RANGE`: initial - reference.

    An unknown reference counts as 0. nan before the initial loss is known.
    """
    range_K = feedback.initial_loss_K - jnp.nan_to_num(feedback.reference_loss_K)
    return jnp.maximum(range_K, MIN_RANGE)


def _share(value_K: jax.Array, stderr_K: jax.Array, feedback: Feedback) -> jax.Array:
    """A value in nats, freed of noise, as a share of what there was to learn."""
    stderr_K = jnp.nan_to_num(stderr_K)  # unknown counts as exact
    range_K = jnp.maximum(learnable_range(feedback), MIN_RANGE_STDERR * stderr_K)
    # Positive-part shrinkage: James and Stein (1961), Breiman's garrote (1995).
    noise_K = (stderr_K / jnp.where(value_K == 0, 1.0, value_K)) ** 2
    share_K = value_K * jnp.maximum(1.0 - noise_K, 0.0) / range_K
    return jnp.where(feedback.observed_K, share_K, jnp.nan)
