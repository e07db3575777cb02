"""From an evaluation to a moved mixture: the slow half of the training state."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax.evaluation.losses import Scores, exact_match, mean_loss, paired_progress
from dcft_jax.mixture import Feedback, MixtureRule, unmeasured
from dcft_jax.training.state import MixtureState, wide_to_float

NAN = float("nan")


@dataclasses.dataclass(frozen=True)
class Measured:
    """One mix-val evaluation on the host; float32 [K] unless said otherwise."""

    loss_K: np.ndarray
    loss_stderr_K: np.ndarray
    accuracy_K: np.ndarray
    progress_K: np.ndarray  # nan at the first evaluation
    progress_stderr_K: np.ndarray
    loss_sum_KN: np.ndarray  # per example, nan where an ability has fewer than N


def measure(scores: Sequence[Scores], before_sum_KN: np.ndarray) -> Measured:
    """Summarises one evaluation and pairs it, example by example, with the last."""
    sums_KN = np.full(before_sum_KN.shape, NAN, np.float32)
    rows = []
    for k, ability in enumerate(scores):
        num_examples = len(ability.loss_sum_N)
        sums_KN[k, :num_examples] = ability.loss_sum_N
        progress = paired_progress(before_sum_KN[k, :num_examples], ability)
        rows.append((*mean_loss(ability), exact_match(ability)[0], *progress))
    loss_K, stderr_K, accuracy_K, progress_K, progress_stderr_K = np.array(
        rows, np.float32
    ).T
    return Measured(
        loss_K=loss_K,
        loss_stderr_K=stderr_K,
        accuracy_K=accuracy_K,
        progress_K=progress_K,
        progress_stderr_K=progress_stderr_K,
        loss_sum_KN=sums_KN,
    )


def make_feedback(
    mixture: MixtureState,
    measured: Measured,
    reference_loss_K: np.ndarray,
    train_rows_K: np.ndarray,
    step: jax.Array,
) -> Feedback:
    """What the rule sees. `train_rows_K` is the size of one epoch in rows."""
    first = jnp.isnan(mixture.initial_loss_K)
    loss_K = jnp.asarray(measured.loss_K)
    return dataclasses.replace(
        unmeasured(len(reference_loss_K)),
        val_loss_K=loss_K,
        val_loss_stderr_K=jnp.asarray(measured.loss_stderr_K),
        reference_loss_K=jnp.asarray(reference_loss_K, jnp.float32),
        initial_loss_K=jnp.where(first, loss_K, mixture.initial_loss_K),
        progress_K=jnp.asarray(measured.progress_K),
        progress_stderr_K=jnp.asarray(measured.progress_stderr_K),
        train_loss_K=mixture.train_loss_sum_K / mixture.train_count_K,  # 0 / 0: nan
        accuracy_K=jnp.asarray(measured.accuracy_K),
        tokens_K=wide_to_float(mixture.tokens_K2),
        epochs_K=mixture.rows_K / jnp.asarray(train_rows_K, jnp.float32),
        observed_K=jnp.isfinite(loss_K),
        step=step,
    )


def update_mixture(
    rule: MixtureRule,
    mixture: MixtureState,
    measured: Measured,
    reference_loss_K: np.ndarray,
    train_rows_K: np.ndarray,
    step: jax.Array,
) -> MixtureState:
    """Lets the rule move the weights, and remembers what the next update needs."""
    feedback = make_feedback(mixture, measured, reference_loss_K, train_rows_K, step)
    return dataclasses.replace(
        mixture,
        rule=rule.update(feedback, mixture.rule),
        # Two buffers, not one twice: the step donates each of them.
        train_loss_sum_K=jnp.zeros_like(mixture.train_loss_sum_K),
        train_count_K=jnp.zeros_like(mixture.train_count_K),
        initial_loss_K=feedback.initial_loss_K,
        val_loss_sum_KN=jnp.asarray(measured.loss_sum_KN),
        last_update=step.astype(jnp.int32),
    )
