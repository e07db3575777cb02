"""Back towards the prior when the dynamic mixture does worse than the prior would."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dcft_jax.mixture.feedback import Feedback
from dcft_jax.mixture.history import History, empty_history, record
from dcft_jax.mixture.power_law import fit_power_law, predict
from dcft_jax.mixture.signals import learnable_range

# Smaller differences do not matter, however certain; as a share of what there was.
MIN_EXCESS = 0.01
ENGAGE, RELEASE = 0.5, 0.25  # change of the level per update
LARGEST = 1e6  # a broken measurement must not become inf in a sum


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GuardState:
    history: History  # of the updates at the prior
    level: jax.Array  # float32, in [0, 1]: how far the weights are taken back
    excess: jax.Array  # float32, of the last comparison, in its standard errors; nan


def init_guard(num_abilities: int, capacity: int) -> GuardState:
    return GuardState(
        history=empty_history(num_abilities, capacity),
        level=jnp.zeros((), jnp.float32),
        excess=jnp.full((), jnp.nan, jnp.float32),
    )


def compare(
    feedback: Feedback, state: GuardState, at_prior: jax.Array, threshold: float
) -> GuardState:
    """Compares the mix-val losses with those of the prior alone.

    These are `static_loss_K` where the feedback has them (from an earlier run), else
    what a power law fitted to the updates at the prior predicts for this step. The
    difference is averaged over the abilities as shares of what there was to learn; its
    error is that of the prediction and the scatter around the law, or the given one.
    Beyond `threshold` standard errors the level rises by 1/2, otherwise it sinks by
    1/4. A law bends less than a decaying learning rate makes losses fall at the end of
    a run, so there a fitted guard is lenient.

    Args:
      at_prior: bool, whether the last interval was trained at the prior.
    """
    step_K = jnp.broadcast_to(
        feedback.step.astype(jnp.float32), feedback.val_loss_K.shape
    )
    loss_K = jnp.where(at_prior & feedback.observed_K, feedback.val_loss_K, jnp.nan)
    error_K = feedback.val_loss_stderr_K
    error_K = jnp.where(jnp.isfinite(error_K), error_K, jnp.nan)  # unknown
    history = record(state.history, step_K, loss_K, error_K)
    law = fit_power_law(history)
    fitted_K, fit_stderr_K = predict(law, step_K)
    fit_stderr_K = jnp.sqrt(fit_stderr_K**2 + law.noise_K**2)
    given_K = jnp.isfinite(feedback.static_loss_K)
    static_K = jnp.where(given_K, feedback.static_loss_K, fitted_K)
    stderr_K = jnp.where(given_K, feedback.static_stderr_K, fit_stderr_K)
    excess_K = (feedback.val_loss_K - static_K) / learnable_range(feedback)
    stderr_K = stderr_K / learnable_range(feedback)
    known_K = feedback.observed_K & jnp.isfinite(excess_K) & jnp.isfinite(stderr_K)
    excess_K = jnp.clip(excess_K, -LARGEST, LARGEST)
    stderr_K = jnp.minimum(stderr_K, LARGEST)
    number = jnp.maximum(jnp.sum(known_K), 1)
    mean = jnp.sum(jnp.where(known_K, excess_K, 0.0)) / number
    error = jnp.sqrt(jnp.sum(jnp.where(known_K, stderr_K**2, 0.0))) / number
    compared = jnp.any(known_K) & ~at_prior
    worse = (mean > MIN_EXCESS) & (mean > threshold * error)
    level = jnp.clip(state.level + jnp.where(worse, ENGAGE, -RELEASE), 0.0, 1.0)
    excess = mean / jnp.maximum(error, 1e-12)
    return GuardState(
        history=history,
        level=jnp.where(compared, level, state.level),
        excess=jnp.where(compared, excess, state.excess),
    )
