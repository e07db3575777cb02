"""Skill-It: losses, passed on along a graph of which ability helps which."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dcft_jax.mixture.checks import require, require_count, require_step_size
from dcft_jax.mixture.measured import bounded, known, or_average
from dcft_jax.mixture.rule import TRANSFER, MixtureRule
from dcft_jax.mixture.simplex import log_of


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SkillItState:
    log_prior_K: jax.Array  # float32
    loss_WK: jax.Array  # float32, the last W of each ability, the newest first
    count_K: jax.Array  # int32, how many of them there are
    graph_KK: jax.Array  # float32, from the trained ability (row) to the evaluated one


def skill_it(
    graph: Sequence[Sequence[float]] | None = None,
    step_size: float = 0.2,
    window: int = 3,
) -> MixtureRule:
    """More of what helps the abilities whose loss is high.

    Skill-It (Chen et al. 2023, arXiv:2307.14430, algorithm 1):

        w_i in proportion to prior_i * exp(eta * sum_j A_ij sum_tau L_j(tau))

    with L_j the mix-val loss at the last `window` evaluations, and `A_ij >= 0` how much
    training on i lowers the loss of j. The losses are raw, so entropy counts.

    The paper finds A by a run per ability and starts from `exp(eta * sum_j A_ij)`; here
    the mixture before the first evaluation is the prior. Without a graph, A is
    estimated at each update from the transfer: `A_ij` is the share of `max(0, T_ji)` in
    its sum over i, T_ji the product of the mix-val gradient of j with the train
    gradient of i, so each loss is divided among the abilities whose step lowers it. An
    ability that no step helps, or of which no transfer is known yet, counts for itself,
    as in the authors' code without a graph.

    An ability measured less often than others counts with its mean loss, one without
    any measurement as average.

    Args:
      graph: A, `[K][K]`, from the trained ability (row) to the evaluated one (column).
      step_size: eta, >= 0.
      window: >= 1.

    Raises:
      ValueError: for a value out of range, or a graph that is not square, finite and
        non-negative; in `init`, for one of another number of abilities.
    """
    require_step_size(step_size)
    require_count("window", window, 1)
    given_KK = None if graph is None else _check_graph(graph)

    def init(prior_K):
        size = len(prior_K)
        graph_KK = np.eye(size, dtype=np.float32) if given_KK is None else given_KK
        expected = f"{size} x {size}, one row and column per ability"
        require(graph_KK.shape == (size, size), "graph", graph_KK.shape, expected)
        return SkillItState(
            log_prior_K=log_of(prior_K),
            loss_WK=jnp.zeros((window, size), jnp.float32),
            count_K=jnp.zeros(size, jnp.int32),
            graph_KK=jnp.array(graph_KK),
        )

    def update(feedback, state):
        loss_K = feedback.val_loss_K
        known_K = known(feedback, loss_K)
        pushed_WK = jnp.concatenate([bounded(loss_K)[None], state.loss_WK[:-1]])
        graph_KK = state.graph_KK
        if given_KK is None:
            graph_KK = _estimate(feedback, graph_KK)
        return SkillItState(
            state.log_prior_K,
            jnp.where(known_K, pushed_WK, state.loss_WK),
            jnp.minimum(state.count_K + known_K, window),
            graph_KK,
        )

    def weights(state):
        # Rows that are not filled are 0.
        mean_K = jnp.sum(state.loss_WK, axis=0) / jnp.maximum(state.count_K, 1)
        mean_K = or_average(state.count_K > 0, mean_K)
        total_K = jnp.max(state.count_K) * mean_K
        helped_K = jnp.matmul(state.graph_KK, total_K, precision=lax.Precision.HIGHEST)
        return jax.nn.softmax(state.log_prior_K + step_size * helped_K)

    needs = frozenset({TRANSFER}) if graph is None else frozenset()
    return MixtureRule(init, update, weights, needs=needs)


def _estimate(feedback, graph_KK) -> jax.Array:
    """The graph from the transfer, column by column where that is known."""
    helps_KK = feedback.transfer_KK.T  # now from the trained one to the evaluated one
    known_K = feedback.observed_K & jnp.all(jnp.isfinite(helps_KK), axis=0)
    largest_K = jnp.max(helps_KK, axis=0)
    helps_KK = jnp.maximum(helps_KK, 0.0) / jnp.where(largest_K > 0, largest_K, 1.0)
    shares_KK = helps_KK / jnp.maximum(jnp.sum(helps_KK, axis=0), 1e-30)
    shares_KK = jnp.where(largest_K > 0, shares_KK, jnp.eye(len(known_K)))
    return jnp.where(known_K, shares_KK, graph_KK)


def _check_graph(graph: Sequence[Sequence[float]]) -> np.ndarray:
    expected = "a square matrix of finite numbers >= 0"
    sound = len({len(row) for row in graph} | {len(graph)}) == 1
    require(sound, "graph", graph, expected)
    graph_KK = np.asarray(graph, np.float32)
    sound = bool(np.all(np.isfinite(graph_KK) & (graph_KK >= 0)))
    require(sound, "graph", graph, expected)
    return graph_KK
