"""What a mixture costs more than the best one, by a task's surrogate law."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dcft_jax.meta.case import Case
from dcft_jax.meta.surrogate import Law, evaluate, fit_laws, gradient

# How much a case's best mixture is held to its sizes: nats of relative entropy against
# losses in units of their spread. Olmix (arXiv:2602.12237) takes 0.05 to 0.1.
KL = 0.05
SAMPLES, REFINED, ITERATIONS = 512, 8, 150
SAME_MIXTURE = 0.01  # mixtures that differ by less are one, with several seeds
NEAR = 0.05  # total variation between a mixture and one that was measured
LOWEST = 1e-12


class Solved(NamedTuple):
    """A case with its law.

    Attributes:
        minimum: of the law over all mixtures, nats.
        spread: 10 to 90 % range of the losses that were measured, nats; what a regret
            is compared with.
        best_K: where `law / spread + KL * KL(w || sizes)` is least; inside the simplex,
            also where the law itself is least at a corner.
    """

    case: Case
    law: Law
    minimum: float
    spread: float
    best_K: np.ndarray


def solve(cases: Sequence[Case], kind: str = "two-domain") -> list[Solved]:
    """Fits the law of every case and finds its minimum; see `fit_laws` for errors."""
    solved = []
    for case, law in zip(cases, fit_laws(kind, cases), strict=True):
        spread = spread_of(case)
        prior_K = case.features.size_K / np.sum(case.features.size_K)
        best_K = _minimise(anchored(law, spread, prior_K), len(prior_K))
        solved.append(Solved(case, law, minimum(law), spread, best_K))
    return solved


def spread_of(case: Case) -> float:
    """10 to 90 % range of the losses that were measured, nats; positive."""
    low, high = np.quantile(np.asarray(case.loss_N, np.float64), [0.1, 0.9])
    return max(float(high - low), 1e-6)


def minimum(law: Law) -> float:
    """Of the law over the simplex, nats; deterministic.

    The best of the corners and of many mixtures drawn once and for all, refined by
    exponentiated gradient descent from the best few of them.
    """

    def objective(weights_SK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return evaluate(law, weights_SK), gradient(law, weights_SK)

    num_abilities = len(law.linear_K)
    best_K = _minimise(objective, num_abilities)
    corners = evaluate(law, np.eye(num_abilities))
    return float(min(evaluate(law, best_K), corners.min()))


def regret(law: Law, weights_K: np.ndarray) -> np.ndarray:
    """`law(w)` less its minimum over the simplex, nats; weights along leading axes."""
    return evaluate(law, np.asarray(weights_K, np.float64)) - minimum(law)


def anchored(
    law: Law, spread: float, prior_K: np.ndarray, strength: float = KL
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """`law(w) / spread + strength * KL(w || prior)` and its gradient."""

    def objective(weights_SK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_SK = np.log(np.maximum(weights_SK, LOWEST) / prior_K)
        value_S = evaluate(law, weights_SK) / spread
        value_S = value_S + strength * np.sum(weights_SK * log_SK, axis=-1)
        return value_S, gradient(law, weights_SK) / spread + strength * (log_SK + 1.0)

    return objective


def measured_mixtures(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Distinct mixtures [U, K] of a case and their losses [U], averaged over seeds."""
    weights_UK = np.stack(
        [mean_over_seeds(case, w_N) for w_N in case.weights_NK.T], axis=1
    )
    return weights_UK, mean_over_seeds(case, case.loss_N)


def nearest_mixture(case: Case, weights_K: np.ndarray) -> int | None:
    """Which of `measured_mixtures` is meant; None: none is within `NEAR`."""
    tried_UK, _ = measured_mixtures(case)
    away_U = 0.5 * np.abs(tried_UK - weights_K).sum(axis=1)
    nearest = int(np.argmin(away_U))
    return nearest if away_U[nearest] <= NEAR else None


def nearest_loss(case: Case, weights_K: np.ndarray) -> float:
    """Of the mixture that is meant, nats per response token; nan: there is none."""
    nearest = nearest_mixture(case, weights_K)
    return (
        float("nan") if nearest is None else float(measured_mixtures(case)[1][nearest])
    )


def mean_over_seeds(case: Case, value_N: np.ndarray) -> np.ndarray:
    """Of the models of each distinct mixture, [U]; nan where one of them is."""
    group_N = same_mixture(case)
    return np.bincount(group_N, weights=value_N) / np.bincount(group_N)


def same_mixture(case: Case) -> np.ndarray:
    """For each model the number of its mixture, int [N]."""
    cell_NK = np.round(np.asarray(case.weights_NK, np.float64) / SAME_MIXTURE)
    return np.unique(cell_NK, axis=0, return_inverse=True)[1].reshape(-1)


def _minimise(objective, num_abilities: int) -> np.ndarray:
    candidates_SK = _candidates(num_abilities)
    value_S = objective(candidates_SK)[0]
    weights_SK = candidates_SK[np.argsort(value_S, kind="stable")[:REFINED]]
    value_S, slope_SK = objective(weights_SK)
    step_S = np.ones(len(weights_SK))
    for _ in range(ITERATIONS):
        move_SK = -step_S[:, None] * (slope_SK - slope_SK.min(axis=1, keepdims=True))
        tried_SK = weights_SK * np.exp(np.clip(move_SK, -30.0, 0.0))
        tried_SK /= tried_SK.sum(axis=1, keepdims=True)
        tried_S, tried_slope_SK = objective(tried_SK)
        better_S = tried_S < value_S
        weights_SK = np.where(better_S[:, None], tried_SK, weights_SK)
        slope_SK = np.where(better_S[:, None], tried_slope_SK, slope_SK)
        value_S = np.where(better_S, tried_S, value_S)
        step_S = np.clip(step_S * np.where(better_S, 1.5, 0.4), 1e-6, 1e6)
    return weights_SK[np.argmin(value_S)]


@lru_cache(maxsize=32)
def _candidates(num_abilities: int) -> np.ndarray:
    """Near the corners, the middle, and everywhere between; no weight is 0."""
    K = num_abilities
    rng = np.random.default_rng(K)
    drawn_SK = rng.dirichlet(np.full(K, 0.5), SAMPLES)
    corners_SK = 0.98 * np.eye(K) + 0.02 / K
    points_SK = np.concatenate([corners_SK, np.full((1, K), 1.0 / K), drawn_SK])
    points_SK = np.maximum(points_SK, 1e-6)
    return points_SK / points_SK.sum(axis=1, keepdims=True)
