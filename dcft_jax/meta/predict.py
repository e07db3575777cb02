"""The initial mixture of a new task, and how far to trust it."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax.meta.domain import out_of_domain
from dcft_jax.meta.features import Features
from dcft_jax.meta.fitted import Fitted
from dcft_jax.meta.inputs import standardise
from dcft_jax.meta.network import Shape, correction, tilt

# lambda of the mirror descent: what it is without a prediction, and its bounds.
ANCHOR, WEAKEST, STRONGEST = 1.0, 0.5, 4.0
MAX_DISAGREEMENT = 1.5  # nats; members differ by a factor of 4.5


class Prediction(NamedTuple):
    """What is known of the best mixture before training.

    Attributes:
        weights_K: the mixture to start from; positive, sums to 1, float32.
        prior_K: the mixture without a prediction.
        stderr_K: standard deviation over the ensemble of each log-ratio to the prior,
            nats; each member was fitted to another draw of the tasks, so it is the
            bootstrap's standard error (Efron 1979).
        anchor: lambda of `dcft_jax.mixture.mirror_descent`, see `anchor_of`.
        trusted: False: `weights_K` is the prior, for the reasons given.
        reasons: empty if trusted.
    """

    weights_K: np.ndarray
    prior_K: np.ndarray
    stderr_K: np.ndarray
    anchor: float
    trusted: bool
    reasons: tuple[str, ...]


def predict(fitted: Fitted, features: Features, prior_K: np.ndarray) -> Prediction:
    """Corrects the prior for a task, unless there is a reason not to.

    The mean of the ensemble's log-ratios, times the strength that held on categories
    that members had not seen. The prior comes back unchanged where the task is out of
    the domain (`out_of_domain`), where the members disagree by more than
    `MAX_DISAGREEMENT`, and where no strength but 0 held.

    Raises:
      ValueError: features of wrong shapes, or a prior that is no mixture of positive
        weights.
    """
    prior_K = _checked(prior_K, features.num_abilities)
    log_prior_K = np.log(prior_K)
    inputs = standardise(fitted.statistics, features)
    ratio_EK = np.asarray(
        _ratios(fitted.shape, fitted.params, inputs, jnp.asarray(log_prior_K))
    )
    stderr_K = np.std(ratio_EK, axis=0, ddof=min(1, len(ratio_EK) - 1))
    reasons = [*out_of_domain(fitted.domain, fitted.statistics, features)]
    disagreement = _mean_square_root(stderr_K)
    if disagreement > MAX_DISAGREEMENT:
        reasons.append(
            f"the ensemble disagrees by {disagreement:.2f} nats, more than "
            f"{MAX_DISAGREEMENT}"
        )
    if fitted.strength == 0:
        reasons.append(
            "on categories left out of its own experience no correction was better "
            "than the prior"
        )
    if reasons:
        return Prediction(prior_K, prior_K, stderr_K, ANCHOR, False, tuple(reasons))
    ratio_K = fitted.strength * ratio_EK.mean(axis=0)
    weights_K = np.asarray(tilt(jnp.asarray(log_prior_K), ratio_K, inputs.valid_K))
    return Prediction(weights_K, prior_K, stderr_K, anchor_of(stderr_K), True, ())


def size_prior(fitted: Fitted, size_K: np.ndarray) -> np.ndarray:
    """The prior that the network was best at correcting, float32: `size ** power`."""
    raw_K = (np.asarray(size_K, np.float64) / np.max(size_K)) ** fitted.power
    return (raw_K / raw_K.sum()).astype(np.float32)


def anchor_of(stderr_K: np.ndarray) -> float:
    """How strongly the mirror descent is held to a prediction of this uncertainty.

    For a constant score s the rule comes to rest at `p0 exp(s / lambda)`, and scores
    are of size 1: 1 / lambda is the drift, in nats, that training can cause. It is let
    go as far as two standard errors of the prediction, their root mean square over the
    abilities: `lambda = 1 / (2 stderr)`, at least `WEAKEST`, at most `STRONGEST`.
    """
    stderr = max(_mean_square_root(stderr_K), 1e-6)
    return float(np.clip(1.0 / (2.0 * stderr), WEAKEST, STRONGEST))


def describe(
    fitted: Fitted, prediction: Prediction, abilities: Sequence[str]
) -> list[str]:
    """The prediction and what it is based on, as lines of text."""
    domain = fitted.domain
    fewest, most = domain.num_abilities
    lines = [
        f"Initial mixture from {domain.num_cases} cases of {len(domain.categories)} "
        f"categories ({', '.join(domain.categories)}), {fewest} to {most} abilities;",
        f"on categories left out: regret {fitted.held_out_regret:.2f} of the spread of "
        f"losses, {fitted.prior_regret:.2f} of the prior `size ** {fitted.power:g}`.",
    ]
    if not prediction.trusted:
        lines.append("Not trusted for this task, so the prior is used:")
        lines += [f"- {reason}" for reason in prediction.reasons]
    width = max(map(len, abilities))
    rows = zip(
        abilities,
        prediction.weights_K,
        prediction.prior_K,
        prediction.stderr_K,
        strict=True,
    )
    for name, weight, prior, stderr in rows:
        lines.append(
            f"{name:{width}}  {weight:6.1%}  (prior {prior:6.1%}, log-ratio "
            f"{np.log(weight / prior):+.2f} ± {stderr:.2f})"
        )
    lines.append(f"anchor {prediction.anchor:.2f}")
    return lines


@functools.partial(jax.jit, static_argnums=0)
def _ratios(shape: Shape, params, inputs, log_prior_K) -> jax.Array:
    each = jax.vmap(correction, (None, 0, None, None))
    return each(shape, params, inputs, log_prior_K)


def _checked(prior_K: np.ndarray, num_abilities: int) -> np.ndarray:
    given_K = np.asarray(prior_K, np.float64)
    if given_K.shape != (num_abilities,):
        raise ValueError(
            f"prior_K has shape {given_K.shape}, expected one weight for each of the "
            f"{num_abilities} abilities"
        )
    if not np.all(given_K > 0) or not abs(given_K.sum() - 1.0) <= 1e-4:
        raise ValueError(
            f"prior_K is {given_K}, expected positive weights that sum to 1"
        )
    return given_K.astype(np.float32)


def _mean_square_root(value_K: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(value_K))))
