"""mSFT: leaves out, one after the other, the abilities that overfit first."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dcft_jax.mixture.checks import require, require_count
from dcft_jax.mixture.measured import MAX_LOSS, bounded, known
from dcft_jax.mixture.rule import MixtureRule

LATER = 2**31 - 1  # after every row of the history


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MsftState:
    """The history is that of the present roll-out; row 0 is where it began."""

    prior_K: jax.Array  # float32
    excluded_K: jax.Array  # int32, 0 or 1
    loss_RK: jax.Array  # float32
    known_RK: jax.Array  # int32, 0 or 1
    step_R: jax.Array  # int32, the optimizer step of each row
    num_rows: jax.Array  # int32
    rollback_step: jax.Array  # int32, -1: the last update asked for none


def msft(
    rollout_updates: int = 4, min_rise: float = 1.0, rollback: bool = True
) -> MixtureRule:
    """Trains, excludes the ability that overfitted first, goes back to its best, again.

    mSFT (Koh et al. 2026, arXiv:2603.21606). A roll-out is
    `rollout_updates` evaluations after the one it begins with. At its end, an ability
    overfits if its mix-val loss was lowest before its last evaluation. The one whose
    lowest loss came first is excluded, its weight is exactly 0 from then on, and
    training goes on from that step; the weights of the others keep the ratios of the
    prior. If none overfits, the next roll-out begins here. The last ability stays.

    Of two that were best at the same evaluation, the one that rose more is excluded.
    Where the paper reads accuracy on the test sets, this reads mix-val losses, with the
    paired error of the loop: a rise of less than `min_rise` standard errors is none.
    Once all are excluded the paper is done.

    Args:
      rollout_updates: the compute budget C of the paper, in evaluations, at least 1.
        It evaluates four times per epoch; C = 1 epoch saved compute over plain
        fine-tuning.
      min_rise: >= 0; the paper: 0.
      rollback: False: training goes on from here when an ability is excluded.

    Raises:
      ValueError: for a value out of range.
    """
    require_count("rollout_updates", rollout_updates, 1)
    sound = 0 <= min_rise < float("inf")
    require(sound, "min_rise", min_rise, "a number in [0, inf)")
    num_rows = rollout_updates + 1

    def init(prior_K):
        size = len(prior_K)
        return MsftState(
            prior_K=jnp.array(prior_K, jnp.float32),
            excluded_K=jnp.zeros(size, jnp.int32),
            loss_RK=jnp.zeros((num_rows, size), jnp.float32),
            known_RK=jnp.zeros((num_rows, size), jnp.int32),
            step_R=jnp.zeros(num_rows, jnp.int32),
            num_rows=jnp.zeros((), jnp.int32),
            rollback_step=-jnp.ones((), jnp.int32),
        )

    def update(feedback, state):
        state = _record(feedback, state)
        stderr_K = jnp.where(feedback.observed_K, feedback.rise_stderr_K, 0.0)
        stderr_K = jnp.nan_to_num(stderr_K)  # unknown counts as exact
        noise_K = min_rise * jnp.clip(stderr_K, 0.0, MAX_LOSS)
        return _end_rollout(state, noise_K, rollback)

    def weights(state):
        kept_K = jnp.where(state.excluded_K > 0, 0.0, state.prior_K)
        return kept_K / jnp.sum(kept_K)

    asked = (lambda state: state.rollback_step) if rollback else None
    reach = num_rows if rollback else 0
    return MixtureRule(init, update, weights, rollback=asked, reach=reach)


def _record(feedback, state) -> MsftState:
    known_K = known(feedback, feedback.val_loss_K)
    loss_K = jnp.where(known_K, bounded(feedback.val_loss_K), 0.0)
    row_R = jnp.arange(len(state.step_R)) == state.num_rows
    row_R &= jnp.any(known_K)  # an update that measured nothing is none
    row_R1 = row_R[:, None]
    return MsftState(
        state.prior_K,
        state.excluded_K,
        jnp.where(row_R1, loss_K, state.loss_RK),
        jnp.where(row_R1, known_K.astype(jnp.int32), state.known_RK),
        jnp.where(row_R, feedback.step, state.step_R),
        state.num_rows + jnp.any(row_R),
        jnp.full((), -1, jnp.int32),
    )


def _end_rollout(state: MsftState, noise_K: jax.Array, rollback: bool) -> MsftState:
    num_rows = len(state.step_R)
    ended = state.num_rows == num_rows
    best_K, rise_K = _best(state)
    active_K = state.excluded_K == 0
    overfits_K = active_K & (rise_K > noise_K)
    overfits_K &= jnp.sum(active_K) > 1  # the last one stays
    first = jnp.min(jnp.where(overfits_K, best_K, LATER))
    candidate_K = overfits_K & (best_K == first)
    worst = jnp.argmax(jnp.where(candidate_K, rise_K, -jnp.inf))
    excludes = ended & jnp.any(overfits_K)
    excluded_K = (jnp.arange(len(best_K)) == worst) & excludes
    # The next roll-out begins at this row.
    start = jnp.where(excludes & rollback, first, num_rows - 1)
    begin_R = (jnp.arange(num_rows) == 0) & ended
    return MsftState(
        state.prior_K,
        state.excluded_K | excluded_K,
        jnp.where(begin_R[:, None], state.loss_RK[start], state.loss_RK),
        jnp.where(begin_R[:, None], state.known_RK[start], state.known_RK),
        jnp.where(begin_R, state.step_R[start], state.step_R),
        jnp.where(ended, 1, state.num_rows),
        jnp.where(excludes & rollback, state.step_R[start], state.rollback_step),
    )


def _best(state: MsftState) -> tuple[jax.Array, jax.Array]:
    """The row of the lowest loss, and how far the last known one is above it."""
    row_R1 = jnp.arange(len(state.step_R))[:, None]
    known_RK = (state.known_RK > 0) & (row_R1 < state.num_rows)
    loss_RK = jnp.where(known_RK, state.loss_RK, jnp.inf)
    best_K = jnp.argmin(loss_RK, axis=0)
    last_K = jnp.max(jnp.where(known_RK, row_R1, 0), axis=0)
    column_K = jnp.arange(len(best_K))
    rise_K = state.loss_RK[last_K, column_K] - state.loss_RK[best_K, column_K]
    return best_K, jnp.where(jnp.any(known_RK, axis=0), rise_K, 0.0)
