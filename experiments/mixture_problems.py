"""Problems for mixture rules whose answers are known: abilities as quadratics.

    L_k(theta) = |A_k (theta - c_k)|^2 / 2 + e_k

Training is gradient descent on `sum_k w_k L_k`. Memorising the rows of a small ability
raises its loss on held-out rows, and is forgotten. Everything that a rule may read is
measured, and a whole run is one scan.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dcft_jax.mixture import (
    Feedback,
    History,
    MixtureRule,
    empty_history,
    recent_slope,
    record,
    unmeasured,
)

STEPS_PER_UPDATE = 5
TOKENS_PER_STEP = 1000.0
KEPT = 0.8  # of what is memorised, from one update to the next


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Problem:
    """float32; U updates, K abilities, D parameters."""

    factor_KDD: jax.Array  # A; 0: nothing to learn
    centre_UKD: jax.Array  # c, which may move during the run
    entropy_K: jax.Array  # e
    start_D: jax.Array
    prior_K: jax.Array
    learning_rate: jax.Array
    eval_noise_UK: jax.Array  # errors of the measured losses
    eval_stderr_K: jax.Array  # their standard deviation, which the rule is told
    gradient_noise_UKD: jax.Array  # error of the gradients of an interval
    epochs_K: jax.Array  # epochs per update at weight 1
    overfit_K: jax.Array  # nats per squared epoch memorised
    reference_K: jax.Array  # what the rule is told of e; nan: nothing
    static_loss_UK: jax.Array  # what the guard is told; nan: nothing


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Path:
    """A run, at its updates."""

    step_U: jax.Array  # int32
    weights_UK: jax.Array  # chosen by the update
    loss_UK: jax.Array  # held out and without noise, before the update
    measured_UK: jax.Array
    probe_U: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Run:
    rule: Any
    theta_D: jax.Array
    memorised_K: jax.Array  # epochs
    step: jax.Array
    tokens_K: jax.Array
    epochs_K: jax.Array
    initial_K: jax.Array
    last_K: jax.Array
    best_K: jax.Array
    train_loss_K: jax.Array
    gram_KK: jax.Array
    history: History


def simulate(
    rule: MixtureRule,
    problem: Problem,
    probe: Callable[[Any], Any] = lambda state: (),
) -> Path:
    """A run with a rule: evaluate, update, train, again; can be jitted.

    Args:
      probe: of the rule's state after every update; ends up in `probe_U`.
    """

    def one(run: _Run, inputs):
        update, centre_KD, static_K, noise_K, noise_KD = inputs
        loss_K = held_out_loss(problem, centre_KD, run.theta_D, run.memorised_K)
        run, feedback = _evaluate(problem, run, centre_KD, loss_K + noise_K, update)
        feedback = replace(
            feedback, static_loss_K=static_K, static_stderr_K=problem.eval_stderr_K
        )
        state = rule.update(feedback, run.rule)
        weights_K = rule.weights(state)
        interval = jnp.int32(STEPS_PER_UPDATE)
        if rule.interval is not None:
            interval = rule.interval(state)
        trained = _train(problem, run, centre_KD, weights_K, interval, noise_KD)
        path = Path(run.step, weights_K, loss_K, loss_K + noise_K, probe(state))
        return replace(trained, rule=state), path

    updates = jnp.arange(len(problem.centre_UKD))
    inputs = (
        updates,
        problem.centre_UKD,
        problem.static_loss_UK,
        problem.eval_noise_UK,
        problem.gradient_noise_UKD,
    )
    return lax.scan(one, _start(rule, problem), inputs)[1]


def quadratic(problem: Problem, centre_KD: jax.Array, theta_D: jax.Array) -> jax.Array:
    """`L_k - e_k`, `[K]`: what training can take off."""
    residual_KD = jnp.einsum("kij,kj->ki", problem.factor_KDD, theta_D - centre_KD)
    return 0.5 * jnp.sum(residual_KD**2, axis=1)


def gradients(problem: Problem, centre_KD: jax.Array, theta_D: jax.Array) -> jax.Array:
    """`A_k^T A_k (theta - c_k)`, `[K, D]`."""
    residual_KD = jnp.einsum("kij,kj->ki", problem.factor_KDD, theta_D - centre_KD)
    return jnp.einsum("kij,ki->kj", problem.factor_KDD, residual_KD)


def held_out_loss(
    problem: Problem, centre_KD: jax.Array, theta_D: jax.Array, memorised_K: jax.Array
) -> jax.Array:
    """The loss with the gap between train and held-out rows, which only repetition
    opens: the first epoch is free."""
    repeated_K = jnp.maximum(memorised_K - 1.0, 0.0)
    gap_K = problem.overfit_K * repeated_K**2
    return quadratic(problem, centre_KD, theta_D) + problem.entropy_K + gap_K


def _start(rule: MixtureRule, problem: Problem) -> _Run:
    size = len(problem.prior_K)

    def zeros_K():
        return jnp.zeros(size, jnp.float32)

    def unknown_K():
        return jnp.full(size, jnp.nan, jnp.float32)

    return _Run(
        rule=rule.init(problem.prior_K),
        theta_D=problem.start_D,
        memorised_K=zeros_K(),
        step=jnp.zeros((), jnp.int32),
        tokens_K=zeros_K(),
        epochs_K=zeros_K(),
        initial_K=unknown_K(),
        last_K=unknown_K(),
        best_K=unknown_K(),
        train_loss_K=unknown_K(),
        gram_KK=jnp.full((size, size), jnp.nan, jnp.float32),
        history=empty_history(size),
    )


def _evaluate(
    problem: Problem, run: _Run, centre_KD, val_K, update
) -> tuple[_Run, Feedback]:
    """What the rule is told, and what the next evaluation is compared with."""
    stderr_K = problem.eval_stderr_K
    run = replace(
        run,
        initial_K=jnp.where(jnp.isnan(run.initial_K), val_K, run.initial_K),
        history=record(run.history, update.astype(jnp.float32), val_K, stderr_K),
    )
    slope_K, slope_stderr_K = recent_slope(run.history)
    gradient_KD = gradients(problem, centre_KD, run.theta_D)
    excess_K = jnp.maximum(val_K - problem.reference_K, 0.0)
    before_K, after_K = _virtual(problem, centre_KD, run.theta_D, gradient_KD)
    feedback = replace(
        unmeasured(len(val_K)),
        val_loss_K=val_K,
        val_loss_stderr_K=stderr_K,
        reference_loss_K=problem.reference_K,
        initial_loss_K=run.initial_K,
        progress_K=run.last_K - val_K,
        progress_stderr_K=jnp.sqrt(2.0) * stderr_K,
        rise_K=val_K - run.best_K,
        rise_stderr_K=jnp.sqrt(2.0) * stderr_K,
        slope_K=slope_K,
        slope_stderr_K=slope_stderr_K,
        train_loss_K=run.train_loss_K,
        excess_loss_K=excess_K,
        virtual_before_K=before_K,
        virtual_after_K=after_K,
        tokens_K=run.tokens_K,
        epochs_K=run.epochs_K,
        observed_K=jnp.ones(len(val_K), bool),
        step=run.step,
        gram_KK=run.gram_KK,
        grad_noise_K=jnp.mean(jnp.sum(problem.gradient_noise_UKD**2, axis=2), axis=0),
        transfer_KK=gradient_KD @ gradient_KD.T,
    )
    best_K = jnp.where(run.best_K <= val_K, run.best_K, val_K)
    return replace(run, last_K=val_K, best_K=best_K), feedback


def _virtual(problem: Problem, centre_KD, theta_D, gradient_KD):
    """Train loss of each ability before and after one step on it alone."""
    before_K = quadratic(problem, centre_KD, theta_D)
    moved_KD = theta_D - problem.learning_rate * gradient_KD
    after_K = jnp.diagonal(
        jax.vmap(lambda moved_D: quadratic(problem, centre_KD, moved_D))(moved_KD)
    )
    return before_K + problem.entropy_K, after_K + problem.entropy_K


def _train(
    problem: Problem, run: _Run, centre_KD, weights_K, interval, noise_KD
) -> _Run:
    def step(_, carry):
        theta_D, gram_KK, loss_K = carry
        gradient_KD = gradients(problem, centre_KD, theta_D)
        loss_K += quadratic(problem, centre_KD, theta_D) + problem.entropy_K
        gram_KK += gradient_KD @ gradient_KD.T
        update_D = weights_K @ (gradient_KD + noise_KD)
        return theta_D - problem.learning_rate * update_D, gram_KK, loss_K

    zeros_KK, zeros_K = jnp.zeros_like(run.gram_KK), jnp.zeros_like(weights_K)
    start = (run.theta_D, zeros_KK, zeros_K)
    theta_D, gram_KK, loss_K = lax.fori_loop(0, interval, step, start)
    length = interval / STEPS_PER_UPDATE
    read_K = problem.epochs_K * weights_K * length
    return replace(
        run,
        theta_D=theta_D,
        memorised_K=KEPT**length * run.memorised_K + read_K,
        step=run.step + interval,
        tokens_K=run.tokens_K + TOKENS_PER_STEP * weights_K * interval,
        epochs_K=run.epochs_K + read_K,
        train_loss_K=loss_K / interval,
        gram_KK=gram_KK / interval,
    )
