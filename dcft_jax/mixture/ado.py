"""ADO: towards the abilities whose fitted power law falls fastest."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from dcft_jax.mixture.checks import require, require_between, require_count
from dcft_jax.mixture.history import History, empty_history, record
from dcft_jax.mixture.power_law import fit_power_law_robustly
from dcft_jax.mixture.rule import MixtureRule

LOSSES: Mapping[str, tuple[str, str | None]] = {
    "train": ("train_loss_K", None),
    "val": ("val_loss_K", "val_loss_stderr_K"),
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AdoState:
    history: History  # by tokens trained on, of all abilities together
    prior_K: jax.Array  # float32, mu
    credit_K: jax.Array  # h, moving average of the mixtures
    preference_K: jax.Array  # rho, before the lower bound
    average_K: jax.Array  # mean of the preferences so far
    policy_K: jax.Array  # pi, the mixture
    num_updates: jax.Array  # int32


def ado(
    loss: str = "train",
    warmup_updates: int = 5,
    credit_power: float = 0.5,
    credit_smoothing: float = 0.9,
    policy_smoothing: float = 0.9,
    min_weight: float = 0.01,
    min_exponent: float = 0.05,
) -> MixtureRule:
    """Adaptive data optimization: weights from the slopes of fitted power laws.

    With `L_k(n) = eps_k + beta_k n^(-alpha_k)` fitted to the run so far, mu the prior
    and h a moving average of the mixtures,

        rho_k ~ mu_k h_k^s alpha_k (L_k(n) - eps_k) / n, at least min_weight
        pi = policy_smoothing average + (1 - policy_smoothing) rho
        average <- average + (rho - average) / (t + 1)

    Jiang et al. 2024 (arXiv:2410.11820, algorithm 1), with the order, the lower bounds
    and the defaults of the authors' code; n are tokens of all abilities, as there.

    Its steps are this rule's updates: every one refits, on at most 64 entries of the
    history, and t counts them. The fit (see `fit_power_law_robustly`) bounds alpha as
    theirs, but not log eps from below by 0.5 nor log beta from above by 6.5: losses of
    fine-tuning lie below. h follows the mixture, not the counts drawn from it. An
    ability without a fit keeps its rho, the others share the rest.

    Args:
      loss: "train" (since the last update) or "val".
      warmup_updates: updates with the prior, whose losses are recorded.
      credit_power: s, in [0, 1].
      credit_smoothing: decay of h, in [0, 1).
      policy_smoothing: in [0, 1).
      min_weight: of rho, in [0, 1 / K), before it is normalised again.
      min_exponent: lower bound of alpha in the slope, >= 0.

    Raises:
      ValueError: for a value out of range.
    """
    require(loss in LOSSES, "loss", loss, f"one of {sorted(LOSSES)}")
    require_count("warmup_updates", warmup_updates, lowest=0)
    valid = 0 <= credit_power <= 1
    require(valid, "credit_power", credit_power, "in [0, 1]")
    require_between("credit_smoothing", credit_smoothing, 0, 1)
    require_between("policy_smoothing", policy_smoothing, 0, 1)
    require_between("min_weight", min_weight, 0, 1)
    require_between("min_exponent", min_exponent, 0, float("inf"))

    def init(prior_K):
        require_between("min_weight", min_weight, 0, 1 / len(prior_K))
        return _init(prior_K)

    def update(feedback, state):
        credit_K = state.credit_K + (1 - credit_smoothing) * (
            state.policy_K - state.credit_K
        )
        history, tokens = _recorded(feedback, state.history, loss)
        new = replace(
            state,
            history=history,
            credit_K=credit_K,
            num_updates=state.num_updates + 1,
        )
        speed_K = _log_speed(history, tokens, min_exponent)
        speed_K += jnp.log(state.prior_K) + credit_power * jnp.log(credit_K)
        moved = _follow(new, speed_K, policy_smoothing, min_weight)
        new = _choose(new.num_updates > warmup_updates, moved, new)
        return _choose(jnp.any(feedback.observed_K), new, state)

    return MixtureRule(init, update, lambda state: state.policy_K)


def _init(prior_K) -> AdoState:
    def prior():  # a copy each: a donated state must not hold one buffer twice
        return jnp.array(prior_K, jnp.float32, copy=True)

    return AdoState(
        empty_history(len(prior_K)),
        prior_K=prior(),
        credit_K=prior(),
        preference_K=prior(),
        average_K=prior(),
        policy_K=prior(),
        num_updates=jnp.zeros((), jnp.int32),
    )


def _recorded(feedback, history, loss):
    name, stderr_name = LOSSES[loss]
    loss_K = jnp.where(feedback.observed_K, getattr(feedback, name), jnp.nan)
    nothing_K = jnp.full_like(loss_K, jnp.nan)
    stderr_K = nothing_K if stderr_name is None else getattr(feedback, stderr_name)
    tokens = jnp.sum(jnp.nan_to_num(feedback.tokens_K))
    return record(history, tokens, loss_K, stderr_K), tokens


def _log_speed(history, tokens, min_exponent):
    """log of `alpha (L(n) - eps)`, the slope times n; nan without a fit."""
    law = fit_power_law_robustly(history)
    left_K = jnp.log(jnp.maximum(law.drop_K, 1e-20))
    left_K = left_K - law.exponent_K * jnp.log(tokens / law.unit_K)
    exponent_K = jnp.maximum(law.exponent_K, min_exponent)
    return jnp.log(jnp.maximum(exponent_K, 1e-20)) + left_K


def _follow(state: AdoState, speed_K, policy_smoothing, min_weight) -> AdoState:
    known_K = jnp.isfinite(speed_K)
    mass = jnp.sum(jnp.where(known_K, state.preference_K, 0.0))
    share_K = jax.nn.softmax(speed_K, where=known_K)
    preference_K = jnp.where(known_K, mass * share_K, state.preference_K)
    preference_K = preference_K / jnp.sum(preference_K)
    bounded_K = jnp.maximum(preference_K, min_weight)
    bounded_K = bounded_K / jnp.sum(bounded_K)
    policy_K = bounded_K + policy_smoothing * (state.average_K - bounded_K)
    step = 1.0 / (state.num_updates + 1)
    average_K = state.average_K + step * (bounded_K - state.average_K)
    return replace(
        state,
        preference_K=preference_K,
        average_K=average_K / jnp.sum(average_K),
        policy_K=policy_K / jnp.sum(policy_K),
    )


def _choose(condition, this: AdoState, that: AdoState) -> AdoState:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), this, that)
