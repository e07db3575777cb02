"""Aioli: towards what a linear mixing law, measured in the run, says helps all."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp

from dcft_jax.mixture.checks import require, require_between, require_count
from dcft_jax.mixture.exponentiated_gradient import exponentiated_gradient
from dcft_jax.mixture.rule import MixtureRule
from dcft_jax.mixture.simplex import log_of

# A drop beyond this is a broken measurement; it must not become inf in a sum.
MAX_DROP = 1e6


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AioliState:
    log_weights_K: jax.Array  # float32, normalised: the mixture between the sweeps
    log_prior_K: jax.Array
    drop_KK: jax.Array  # float32, sum of loss drops: of the row's, training on column's
    count_KK: jax.Array  # int32, how many
    law_KK: jax.Array  # float32, moving average of the normalised A
    position: jax.Array  # int32, parts of this sweep that are done
    num_sweeps: jax.Array  # int32, sweeps that are done


def aioli(
    step_size: float = 0.2,
    lp_rounds: int = 4,
    lp_steps: int = 4,
    update_steps: int = 250,
    one_hot: float = 0.625,
    smoothing: float | None = None,
    seed: int = 0,
) -> MixtureRule:
    """Exponentiated gradient on a mixing law that sweeps of the run itself measure.

    Law: an interval trained on mixture p lowers mix-val loss i by `sum_j A_ij p_j`. A
    sweep trains `lp_rounds` times, in random order, `lp_steps` steps on each of the K
    mixtures that give `one_hot` to one ability and the rest evenly to the others; A
    solves the linear system of the mean drops. Then A is shifted up until no entry is
    negative, scaled to sum 1, and

        w_j <- w_j exp(step_size sum_i A_ij)    for `update_steps` steps.

    With `smoothing` b: `A_avg <- b A_avg + (1 - b) A`, starting with the first A, and
    `w_j ~ prior_j exp(step_size sum_i A_avg,ij)`, which does not accumulate. Chen et
    al. 2024 (arXiv:2411.05735, algorithms 1 and 2), with the normalisation, this
    variant and the defaults of the authors' code.

    It starts at the prior where they start uniform. A sweep comes before, not out of,
    the `update_steps`: sweep and use take `K lp_rounds lp_steps + update_steps`. Drops
    are the paired `progress_K` of the updates. An ability whose drops a sweep did not
    all measure at least once has no say in it. With one ability there is no sweep to
    solve for and the weight is 1.

    Args:
      step_size: eta, >= 0.
      lp_rounds: rounds of a sweep.
      lp_steps: optimizer steps of each part of a sweep.
      update_steps: optimizer steps between sweeps.
      one_hot: in (1 / K, 1].
      smoothing: b, in [0, 1); None: weights accumulate.
      seed: of the orders.

    Raises:
      ValueError: for a value out of range.
    """
    require_between("step_size", step_size, 0, float("inf"))
    require_count("lp_rounds", lp_rounds)
    require_count("lp_steps", lp_steps)
    require_count("update_steps", update_steps)
    require(0 < one_hot <= 1, "one_hot", one_hot, "in (1 / K, 1]")
    if smoothing is not None:
        require_between("smoothing", smoothing, 0, 1)

    def init(prior_K):
        size = len(prior_K)
        valid = size == 1 or one_hot > 1 / size + 1e-3
        require(valid, "one_hot", one_hot, f"above 1 / K = {1 / size:.3f}, up to 1")
        return _init(prior_K)

    def update(feedback, state):
        length = lp_rounds * len(state.log_weights_K)
        sweeping = state.position < length
        measured = _measure(feedback, state, _column(state, seed), sweeping)
        ended = measured.position == length
        stepped = _use(measured, one_hot, step_size, smoothing)
        new = _choose(sweeping & ended, stepped, measured)
        # After `update_steps` with the new mixture the next sweep starts.
        new = _choose(sweeping, new, _next_sweep(state))
        return _choose(jnp.any(feedback.observed_K), new, state)

    def weights(state):
        size = len(state.log_weights_K)
        swept_K = _smoothed(_column(state, seed), size, one_hot)
        sweeping = state.position < lp_rounds * size
        return jnp.where(sweeping, swept_K, jax.nn.softmax(state.log_weights_K))

    def interval(state):
        sweeping = state.position < lp_rounds * len(state.log_weights_K)
        return jnp.where(sweeping, lp_steps, update_steps).astype(jnp.int32)

    return MixtureRule(init, update, weights, interval=interval)


def _init(prior_K) -> AioliState:
    shape = (len(prior_K), len(prior_K))
    return AioliState(
        log_weights_K=log_of(prior_K),
        log_prior_K=log_of(prior_K),
        drop_KK=jnp.zeros(shape, jnp.float32),
        count_KK=jnp.zeros(shape, jnp.int32),
        law_KK=jnp.zeros(shape, jnp.float32),
        position=jnp.zeros((), jnp.int32),
        num_sweeps=jnp.zeros((), jnp.int32),
    )


def _column(state: AioliState, seed):
    """The ability that the current part of the sweep is mostly trained on."""
    size = len(state.log_weights_K)
    key = jax.random.fold_in(jax.random.key(seed), state.num_sweeps)
    key = jax.random.fold_in(key, state.position // size)
    return jax.random.permutation(key, size)[state.position % size]


def _smoothed(column, size, one_hot):
    rest = (1.0 - one_hot) / max(size - 1, 1)
    share_K = jnp.where(jnp.arange(size) == column, one_hot, rest)
    return share_K / jnp.sum(share_K)


def _measure(feedback, state: AioliState, column, sweeping) -> AioliState:
    known_K = feedback.observed_K & jnp.isfinite(feedback.progress_K) & sweeping
    drop_K = jnp.clip(feedback.progress_K, -MAX_DROP, MAX_DROP)
    drop_K = jnp.where(known_K, drop_K, 0.0)
    return replace(
        state,
        drop_KK=state.drop_KK.at[:, column].add(drop_K),
        count_KK=state.count_KK.at[:, column].add(known_K.astype(jnp.int32)),
        # A part that measured nothing is trained again.
        position=state.position + jnp.any(known_K),
    )


def _use(state: AioliState, one_hot, step_size, smoothing) -> AioliState:
    law_KK, known = _solve(state, one_hot)
    if smoothing is None:
        average_KK, log_K = law_KK, state.log_weights_K
    else:
        kept = jnp.where(state.num_sweeps == 0, 0.0, smoothing)
        average_KK, log_K = law_KK + kept * (state.law_KK - law_KK), state.log_prior_K
    log_K = exponentiated_gradient(log_K, step_size * jnp.sum(average_KK, axis=0))
    return replace(
        state,
        log_weights_K=jnp.where(known, log_K, state.log_weights_K),
        law_KK=jnp.where(known, average_KK, state.law_KK),
        num_sweeps=state.num_sweeps + known,
    )


def _solve(state: AioliState, one_hot):
    """A, shifted and scaled, with zeros for unknown rows; whether there is any row."""
    size = len(state.log_weights_K)
    known_K1 = jnp.all(state.count_KK > 0, axis=1, keepdims=True)
    mean_KK = state.drop_KK / jnp.maximum(state.count_KK, 1)
    # The mixtures are (f - o) I + o 1 1^T with rows that sum to 1: inverted by hand.
    rest = (1.0 - one_hot) / max(size - 1, 1)
    scale = 1.0 if size == 1 else one_hot - rest
    total_K1 = jnp.sum(mean_KK, axis=1, keepdims=True)
    law_KK = (mean_KK - rest * total_K1) / scale
    lowest = jnp.min(law_KK, where=known_K1, initial=0.0)
    law_KK = jnp.where(known_K1, law_KK - lowest, 0.0)
    total = jnp.sum(law_KK)
    return law_KK / jnp.where(total > 0, total, 1.0), jnp.any(known_K1)


def _next_sweep(state: AioliState) -> AioliState:
    return replace(
        state,
        drop_KK=jnp.zeros_like(state.drop_KK),
        count_KK=jnp.zeros_like(state.count_KK),
        position=jnp.zeros_like(state.position),
    )


def _choose(condition, this: AioliState, that: AioliState) -> AioliState:
    return jax.tree.map(partial(jnp.where, condition), this, that)
