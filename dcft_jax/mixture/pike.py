"""PiKE: towards the abilities with large gradients and little noise."""

import jax
import jax.numpy as jnp

from dcft_jax.mixture.checks import require, require_between
from dcft_jax.mixture.exponentiated_gradient import exponentiated_gradient
from dcft_jax.mixture.rule import GRAMIAN, NOISE, MixtureRule
from dcft_jax.mixture.simplex import log_of


def pike(
    norm_step: float = 0.1, noise_step: float = 0.1, tilt: float | None = None
) -> MixtureRule:
    """Positive gradient interaction-based task weights, plain or balanced.

    `w_k <- w_k exp(zeta_1 |g_k|^2 - zeta_2 sigma_k^2 / (2 b))`, normalised: one step of
    mirror descent on a bound of the loss after the next step, for gradients that hardly
    conflict. Li et al. 2025 (arXiv:2502.06244, algorithm 1), with |g_k|^2 free of noise
    and sigma_k^2 the variance of the gradient of one of b rows.

    With `tilt`, Balanced-PiKE: the objective is `log(sum_k exp(tau L_k)) / tau`, which
    is `sum_k y_k L_k` with `y_k = tau exp(tau L_k) / sum_j exp(tau L_j)` (lemma 3.6).
    So |g_k|^2 and sigma_k^2 are those of the losses `y_k L_k`: `y_k^2` times as large.

    What is measured is the noise of the gradient of k's rows in a step, `w_k b` of them
    on average; so `sigma_k^2 / b` is taken as `w_k` times it. The paper tunes zeta_1
    and zeta_2 and names no defaults. They go with the square of the gradient's unit.

    Args:
      norm_step: zeta_1, >= 0.
      noise_step: zeta_2, >= 0.
      tilt: tau, > 0 (the paper: 1 to 3), on the train losses; None: plain.

    Raises:
      ValueError: for a value out of range.
    """
    require_between("norm_step", norm_step, 0, float("inf"))
    require_between("noise_step", noise_step, 0, float("inf"))
    valid = tilt is None or 0 < tilt < float("inf")
    require(valid, "tilt", tilt, "in (0, inf) or None")

    def update(feedback, state):
        square_K = jnp.maximum(jnp.diagonal(feedback.gram_KK), 0.0)  # nan stays nan
        noise_K = jnp.exp(state) * feedback.grad_noise_K
        step_K = norm_step * square_K - noise_step / 2 * noise_K
        if tilt is not None:
            known_K = feedback.observed_K & jnp.isfinite(feedback.train_loss_K)
            step_K = step_K * _tilted(feedback.train_loss_K, known_K, tilt) ** 2
        step_K = jnp.where(feedback.observed_K, step_K, jnp.nan)
        return exponentiated_gradient(state, step_K)

    return MixtureRule(log_of, update, jax.nn.softmax, frozenset({GRAMIAN, NOISE}))


def _tilted(loss_K, known_K, tilt):
    """y, over the abilities whose losses are known; nan for the others."""
    share_K = jax.nn.softmax(tilt * loss_K, where=known_K)
    return jnp.where(known_K, tilt * share_K, jnp.nan)
