"""From an evaluation to a moved mixture: the slow half of the training state."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from dcft_jax.mixture import (
    Feedback,
    TierFeedback,
    ability_sums,
    fit_power_law,
    recent_slope,
    record,
    reference_losses,
    unmeasured,
    unmeasured_tiers,
)
from dcft_jax.training.composition import Composition, weights_and_shares
from dcft_jax.training.measured import Measured
from dcft_jax.training.state import MixtureState, init_sums, wide_to_float


def make_feedback(
    composition: Composition,
    mixture: MixtureState,
    measured: Measured,
    extra: Mapping[str, jax.Array],
    step: jax.Array,
) -> Feedback:
    """What the rule sees.

    Args:
      mixture: with this evaluation in its history already.
      extra: fields of the feedback that the rule asked for and the loop measured.
    """
    sums = mixture.train
    return dataclasses.replace(
        unmeasured(len(composition.prior_K)),
        val_loss_K=measured.loss_K,
        val_loss_stderr_K=measured.loss_stderr_K,
        reference_loss_K=_references(composition, mixture),
        initial_loss_K=mixture.initial_loss_K,
        progress_K=measured.progress_K,
        progress_stderr_K=measured.progress_stderr_K,
        rise_K=measured.rise_K,
        rise_stderr_K=measured.rise_stderr_K,
        **_slopes(mixture, step),
        train_loss_K=sums.loss_K / sums.count_K,  # 0 / 0: nan
        accuracy_K=measured.accuracy_K,
        tokens_K=wide_to_float(mixture.tokens_K2),
        epochs_K=_epochs(composition, mixture),
        observed_K=jnp.isfinite(measured.loss_K),
        step=step,
        gram_KK=_mean_gramian(mixture),
        grad_noise_K=sums.noise_K / sums.noise_count_K,
        **extra,
    )


def update_mixture(
    composition: Composition,
    mixture: MixtureState,
    measured: Measured,
    extra: Mapping[str, jax.Array],
    step: jax.Array,
) -> MixtureState:
    """Lets the rules move the weights, and remembers what the next update needs."""
    mixture = _remember(mixture, measured, step)
    feedback = make_feedback(composition, mixture, measured, extra, step)
    rule = composition.rule.update(feedback, mixture.rule)
    tier_feedback = _tier_feedback(composition, mixture, measured, step)
    tier_rule = composition.tier_rule.update(tier_feedback, mixture.tier_rule)
    weights_K, shares_C = weights_and_shares(
        composition, rule, tier_rule, mixture.rows_C, mixture.credit_C, step
    )
    every = composition.eval_every
    next_update = (step // every + 1) * every
    if composition.rule.interval is not None:
        next_update = step + composition.rule.interval(rule)
    return dataclasses.replace(
        mixture,
        rule=rule,
        tier_rule=tier_rule,
        weights_K=weights_K,
        shares_C=shares_C,
        train=init_sums(len(composition.prior_K)),
        num_updates=mixture.num_updates + 1,
        last_update=step.astype(jnp.int32),
        next_update=next_update.astype(jnp.int32),
    )


def _remember(
    mixture: MixtureState, measured: Measured, step: jax.Array
) -> MixtureState:
    first_K = jnp.isnan(mixture.initial_loss_K)
    first_KT = jnp.isnan(mixture.initial_loss_KT)
    better_K = jnp.isfinite(measured.loss_K) & ~(measured.rise_K >= 0)
    known_KN = jnp.isfinite(measured.loss_sum_KN)
    # Examples that were not there at the best evaluation enter when first seen.
    taken_KN = known_KN & (better_K[:, None] | jnp.isnan(mixture.best_loss_sum_KN))
    step_K = jnp.broadcast_to(step.astype(jnp.float32), measured.loss_K.shape)
    return dataclasses.replace(
        mixture,
        initial_loss_K=jnp.where(first_K, measured.loss_K, mixture.initial_loss_K),
        initial_loss_KT=jnp.where(first_KT, measured.loss_KT, mixture.initial_loss_KT),
        val_loss_sum_KN=jnp.asarray(measured.loss_sum_KN),
        best_loss_sum_KN=jnp.where(
            taken_KN, measured.loss_sum_KN, mixture.best_loss_sum_KN
        ),
        best_step_K=jnp.where(better_K, step, mixture.best_step_K).astype(jnp.int32),
        history=record(
            mixture.history,
            step_K,
            jnp.asarray(measured.loss_K),
            jnp.asarray(measured.loss_stderr_K),
        ),
    )


def _references(composition: Composition, mixture: MixtureState) -> jax.Array:
    given_K = jnp.asarray(composition.given_reference_K, jnp.float32)
    if composition.references == "given":
        return given_K
    return reference_losses(given_K, fit_power_law(mixture.history))


def _slopes(mixture: MixtureState, step: jax.Array) -> dict[str, jax.Array]:
    """Of the loss, per update as long as the last one."""
    length = jnp.maximum(step - jnp.maximum(mixture.last_update, 0), 1)
    slope_K, stderr_K = recent_slope(mixture.history)
    return {"slope_K": slope_K * length, "slope_stderr_K": stderr_K * length}


def _epochs(composition: Composition, mixture: MixtureState) -> jax.Array:
    ability_C, _ = composition.parts
    num_abilities = len(composition.prior_K)
    rows_K = ability_sums(mixture.rows_C, ability_C, num_abilities)
    return rows_K / jnp.asarray(composition.size_KT.sum(axis=1), jnp.float32)


def _mean_gramian(mixture: MixtureState) -> jax.Array:
    """Over the steps since the last update; the noise is off the diagonal if known."""
    sums = mixture.train
    gram_KK = sums.gram_KK / sums.gram_count_KK  # 0 / 0: nan
    signal_K = sums.signal_K / sums.noise_count_K
    diagonal_K = jnp.where(
        jnp.isfinite(signal_K), jnp.maximum(signal_K, 0.0), jnp.diagonal(gram_KK)
    )
    on_diagonal_KK = jnp.eye(len(signal_K), dtype=bool)
    return jnp.where(on_diagonal_KK, diagonal_K, gram_KK)


def _tier_feedback(
    composition: Composition,
    mixture: MixtureState,
    measured: Measured,
    step: jax.Array,
) -> TierFeedback:
    rows_KT = jnp.zeros(composition.size_KT.shape, jnp.float32)
    rows_KT = rows_KT.at[composition.parts].set(mixture.rows_C.astype(jnp.float32))
    reference_K = jnp.asarray(composition.given_reference_K, jnp.float32)
    return dataclasses.replace(
        unmeasured_tiers(*composition.size_KT.shape),
        val_loss_KT=measured.loss_KT,
        val_loss_stderr_KT=measured.loss_stderr_KT,
        # The ability's: nobody knows those of its tiers.
        reference_loss_KT=jnp.broadcast_to(reference_K[:, None], rows_KT.shape),
        initial_loss_KT=mixture.initial_loss_KT,
        progress_KT=measured.progress_KT,
        progress_stderr_KT=measured.progress_stderr_KT,
        epochs_KT=rows_KT / jnp.maximum(composition.size_KT, 1),
        observed_KT=jnp.isfinite(measured.loss_KT),
        step=step,
    )
