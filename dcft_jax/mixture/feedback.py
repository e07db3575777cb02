"""What an evaluation tells the mixture rule."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Feedback:
    """One pytree per evaluation, all-reduced, so identical on every host.

    Arrays are float32 `[K]` unless said otherwise; nan means "not measured". Losses
    are per response token, in nats.
    """

    val_loss_K: jax.Array  # on the mix-val rows, now
    val_loss_stderr_K: jax.Array
    reference_loss_K: jax.Array  # nothing left to gain: a specialist's, or the entropy
    initial_loss_K: jax.Array  # on the mix-val rows, before training
    progress_K: jax.Array  # mean paired decrease on the same rows since the last update
    progress_stderr_K: jax.Array
    rise_K: jax.Array  # mean paired increase on the same rows over the best so far
    rise_stderr_K: jax.Array
    slope_K: jax.Array  # of the mix-val loss over the recent updates, per update
    slope_stderr_K: jax.Array
    static_loss_K: jax.Array  # what the prior alone would have reached by now
    static_stderr_K: jax.Array
    train_loss_K: jax.Array  # since the last update
    excess_loss_K: jax.Array  # mean of max(0, loss - reference model's) per token
    virtual_before_K: jax.Array  # on one batch of k, and after one step on it alone
    virtual_after_K: jax.Array
    accuracy_K: jax.Array
    tokens_K: jax.Array  # response tokens trained on so far
    epochs_K: jax.Array
    observed_K: jax.Array  # bool: no measurement above is read where this is False
    step: jax.Array  # int32, optimizer steps so far
    gram_KK: jax.Array  # <g_i, g_j> of the abilities' train gradients, average since
    # the last update, noise taken off the diagonal
    grad_noise_K: jax.Array  # E |g_k - E g_k|^2 of the gradient of one step
    transfer_KK: jax.Array  # <mix-val gradient of row's, train gradient of column's>


def unmeasured(num_abilities: int, step: int = 0) -> Feedback:
    """Feedback without information; fill in with `dataclasses.replace`."""
    nan_K = jnp.full(num_abilities, jnp.nan, jnp.float32)
    nan_KK = jnp.full((num_abilities, num_abilities), jnp.nan, jnp.float32)
    zero_K = jnp.zeros(num_abilities, jnp.float32)
    return Feedback(
        val_loss_K=nan_K,
        val_loss_stderr_K=nan_K,
        reference_loss_K=nan_K,
        initial_loss_K=nan_K,
        progress_K=nan_K,
        progress_stderr_K=nan_K,
        rise_K=nan_K,
        rise_stderr_K=nan_K,
        slope_K=nan_K,
        slope_stderr_K=nan_K,
        static_loss_K=nan_K,
        static_stderr_K=nan_K,
        train_loss_K=nan_K,
        excess_loss_K=nan_K,
        virtual_before_K=nan_K,
        virtual_after_K=nan_K,
        accuracy_K=nan_K,
        tokens_K=zero_K,
        epochs_K=zero_K,
        observed_K=jnp.zeros(num_abilities, bool),
        step=jnp.asarray(step, jnp.int32),
        gram_KK=nan_KK,
        grad_noise_K=nan_K,
        transfer_KK=nan_KK,
    )
