"""DoGE: towards the abilities whose gradients point where the others' do."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dcft_jax.mixture.checks import require, require_between
from dcft_jax.mixture.exponentiated_gradient import exponentiated_gradient
from dcft_jax.mixture.rule import GRAMIAN, MixtureRule
from dcft_jax.mixture.simplex import log_of, mix_floor


def doge(
    step_size: float = 0.05,
    max_score: float = 5.0,
    min_score: float = 0.0,
    floor: float = 0.0,
    target: Sequence[int] | None = None,
) -> MixtureRule:
    """Domain reweighting with generalization estimation.

    `w_k <- w_k exp(step_size s_k)`, with
    `s_k = clip(sum_{j != k} <g_k, g_j> / mean_j |g_j|, min_score, max_score)`,
    normalised, then `(1 - floor) w + floor / K`. Fan, Pagliardini and Jaggi 2023
    (arXiv:2310.15393, algorithm 1), with the normalisation, the clipping and the
    defaults of the authors' code.

    Here `step_size` is their learning rate over their mu, 5e-4 / 0.01 at its peak, and
    does not follow a schedule. The gradients are those of the run itself, averaged
    since the last update: there is no proxy model, and no average of the weights to
    train a second model with.

    Args:
      step_size: >= 0.
      max_score: upper end of the scores, in units of a gradient's norm.
      min_score: lower end, at most `max_score`; with 0 a conflict counts as nothing.
      floor: in [0, 1).
      target: indices of the abilities to be good at: the sum is then over these, and
        over k itself where it is one of them; None: over all others.

    Raises:
      ValueError: for a value out of range.
    """
    require_between("step_size", step_size, 0, float("inf"))
    require(abs(max_score) < float("inf"), "max_score", max_score, "a finite number")
    valid = float("-inf") < min_score <= max_score
    require(valid, "min_score", min_score, f"finite, at most max_score = {max_score}")
    require_between("floor", floor, 0, 1)
    valid = target is None or (len(target) > 0 and min(target) >= 0)
    require(valid, "target", target, "some indices of abilities")

    def init(prior_K):
        valid = target is None or max(target) < len(prior_K)
        require(valid, "target", target, f"indices of {len(prior_K)} abilities")
        return log_of(prior_K)

    def update(feedback, state):
        pairs_KK = _pairs(len(state), target)
        score_K = _scores(feedback.gram_KK, pairs_KK)
        score_K = jnp.clip(score_K, min_score, max_score)
        step_K = jnp.where(feedback.observed_K, step_size * score_K, jnp.nan)
        log_K = exponentiated_gradient(state, step_K)
        return log_of(mix_floor(jnp.exp(log_K), floor)) if floor else log_K

    return MixtureRule(init, update, jax.nn.softmax, frozenset({GRAMIAN}))


def _pairs(num_abilities, target):
    """Whether the score of the row's ability counts the column's."""
    if target is None:
        return ~jnp.eye(num_abilities, dtype=bool)
    chosen_K = jnp.zeros(num_abilities, bool).at[jnp.asarray(target)].set(True)
    pairs_KK = jnp.broadcast_to(chosen_K, (num_abilities, num_abilities))
    return pairs_KK & ~(jnp.eye(num_abilities, dtype=bool) & jnp.all(chosen_K))


def _scores(gram_KK, pairs_KK):
    """nan for an ability without a gradient, or without one to compare it with."""
    square_K = jnp.diagonal(gram_KK)
    known_K = jnp.isfinite(square_K)
    norm_K = jnp.sqrt(jnp.maximum(jnp.where(known_K, square_K, 0.0), 0.0))
    mean_norm = jnp.sum(norm_K) / jnp.maximum(jnp.sum(known_K), 1)
    used_KK = pairs_KK & jnp.isfinite(gram_KK)
    total_K = jnp.sum(jnp.where(used_KK, gram_KK, 0.0), axis=1)
    compared_K = known_K & jnp.any(used_KK, axis=1)
    return jnp.where(compared_K, total_K / (mean_norm + 1e-6), jnp.nan)
