"""What a network was fitted on, and whether a new task is like it."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dcft_jax.meta.case import Case
from dcft_jax.meta.features import ABILITY, PAIR, TASK, Features
from dcft_jax.meta.inputs import Inputs, Statistics, standardise

# Beyond the range seen by half of its width and this much more is too far.
REACH, SLACK = 0.5, 0.1
LOG_SLACK = float(np.log(2.0))  # for logarithms: twice, or half
LOGARITHMS = {
    *("loss_ratio", "prompt_tokens", "response_tokens", "share", "epochs"),
    *("support", "budget", "parameters"),
}
MAX_MISSING = 0.5  # share of the features that were measured in training
SHRINKAGE = 0.1  # of the covariance towards its diagonal's mean


class Domain(NamedTuple):
    """Of the training cases; ranges are of known values, nan where there are none.

    Attributes:
        categories: of the tasks.
        num_cases: that were trained on.
        num_abilities: fewest and most of a case.
        experience: hash of the cases.
        task_range_2G: lowest and highest.
        ability_range_2F: lowest and highest.
        pair_range_2P: lowest and highest.
        mean_V: of the summary of a case, see `distance`.
        whitening_VV: from deviations of the summary to independent unit ones.
        max_distance: the largest distance of a case from the cases of all other
            categories.
    """

    categories: tuple[str, ...]
    num_cases: int
    num_abilities: tuple[int, int]
    experience: str
    task_range_2G: np.ndarray
    ability_range_2F: np.ndarray
    pair_range_2P: np.ndarray
    mean_V: np.ndarray
    whitening_VV: np.ndarray
    max_distance: float


def measure_domain(cases: Sequence[Case], statistics: Statistics) -> Domain:
    """The domain of cases of at least one category."""
    features = [case.features for case in cases]
    counts = [one.num_abilities for one in features]
    summary_CV = np.stack([_summary(standardise(statistics, one)) for one in features])
    mean_V, whitening_VV = _moments(summary_CV)
    pairs = [one.pair_KKP.reshape(-1, len(PAIR)) for one in features]
    return Domain(
        categories=tuple(sorted({case.category for case in cases})),
        num_cases=len(cases),
        num_abilities=(min(counts), max(counts)),
        experience=experience_hash(cases),
        task_range_2G=_range(np.stack([one.task_G for one in features])),
        ability_range_2F=_range(np.concatenate([one.ability_KF for one in features])),
        pair_range_2P=_range(np.concatenate(pairs)),
        mean_V=mean_V,
        whitening_VV=whitening_VV,
        max_distance=_held_out_distance(summary_CV, [case.category for case in cases]),
    )


def distance(domain: Domain, inputs: Inputs) -> float:
    """Mahalanobis distance of a task from the training cases, per root dimension.

    Of the task's features and the mean over abilities of theirs; what is missing is
    taken for the mean. The covariance is shrunk (Ledoit and Wolf 2004, with a fixed
    share), so that few cases do not make it singular.
    """
    return _distance(_summary(inputs), domain.mean_V, domain.whitening_VV)


def out_of_domain(
    domain: Domain, statistics: Statistics, features: Features
) -> tuple[str, ...]:
    """Why a task is unlike those of the training cases; empty: it is like them."""
    inputs = standardise(statistics, features)
    reasons = [*_out_of_range(domain, features)]
    fewest, most = domain.num_abilities
    if not fewest <= features.num_abilities <= most:
        reasons.append(
            f"{features.num_abilities} abilities, it was fitted on {fewest} to {most}"
        )
    missing = _missing(statistics, inputs)
    if missing > MAX_MISSING:
        reasons.append(f"{missing:.0%} of the features it was fitted on are missing")
    found = distance(domain, inputs)
    if found > domain.max_distance:
        reasons.append(
            f"as a whole it is {found:.2f} away from what it was fitted on, more than "
            f"the {domain.max_distance:.2f} of a category that was left out"
        )
    return tuple(reasons)


def experience_hash(cases: Sequence[Case]) -> str:
    """Of all that is learnt from in the cases, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for case in cases:
        names = (case.world, case.task, case.category, case.abilities)
        digest.update(repr(names).encode())
        measured = (case.weights_NK, case.loss_N, case.accuracy_N, case.seed_N)
        for array in (*case.features, *measured):
            array = np.ascontiguousarray(array)
            digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _out_of_range(domain: Domain, features: Features) -> Iterator[str]:
    for kind, names, value, range_2X in (
        ("task", TASK, features.task_G[None], domain.task_range_2G),
        ("ability", ABILITY, features.ability_KF, domain.ability_range_2F),
        (
            "pair",
            PAIR,
            features.pair_KKP.reshape(-1, len(PAIR)),
            domain.pair_range_2P,
        ),
    ):
        for x, name in enumerate(names):
            low, high = range_2X[:, x]
            slack = LOG_SLACK if name in LOGARITHMS else SLACK
            reach = REACH * (high - low) + slack
            known_N = value[:, x][np.isfinite(value[:, x])]
            odd_N = known_N[(known_N < low - reach) | (known_N > high + reach)]
            if odd_N.size:
                worst = odd_N[np.argmax(np.abs(odd_N - (low + high) / 2))]
                shown = np.array([worst, low, high], np.float64)
                shown = np.exp(shown) if name in LOGARITHMS else shown
                worst, low, high = (
                    f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"
                    for number in shown
                )
                yield f"{name} of {kind} is {worst}, it was fitted on {low} to {high}"


def _missing(statistics: Statistics, inputs: Inputs) -> float:
    """Share of the features, task's and abilities', that are missing."""
    used_G = np.isfinite(statistics.task_scale_G)
    used_F = np.isfinite(statistics.ability_scale_F)
    K = len(inputs.valid_K)
    number = used_G.sum() + K * used_F.sum()
    known = inputs.known_task_G.sum() + inputs.known_ability_KF.sum()
    return float(1.0 - known / max(number, 1))


def _summary(inputs: Inputs) -> np.ndarray:
    count_F = np.maximum(inputs.known_ability_KF.sum(axis=0), 1.0)
    mean_F = inputs.ability_KF.sum(axis=0) / count_F
    return np.concatenate([inputs.task_G, mean_F]).astype(np.float64)


def _moments(summary_CV: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean_V = summary_CV.mean(axis=0)
    deviation_CV = summary_CV - mean_V
    covariance_VV = deviation_CV.T @ deviation_CV / len(summary_CV)
    size = max(float(np.trace(covariance_VV)) / len(mean_V), 1e-6)
    covariance_VV *= 1.0 - SHRINKAGE
    covariance_VV += SHRINKAGE * size * np.eye(len(mean_V))
    return mean_V, np.linalg.inv(np.linalg.cholesky(covariance_VV))


def _distance(summary_V, mean_V, whitening_VV) -> float:
    return float(np.sqrt(np.mean((whitening_VV @ (summary_V - mean_V)) ** 2)))


def _held_out_distance(summary_CV: np.ndarray, categories: Sequence[str]) -> float:
    """inf for a single category: nothing is known of other ones."""
    category_C = np.array(categories)
    if len(set(categories)) < 2:
        return float("inf")
    largest = 0.0
    for category in sorted(set(categories)):
        held_C = category_C == category
        moments = _moments(summary_CV[~held_C])
        found = [_distance(summary_V, *moments) for summary_V in summary_CV[held_C]]
        largest = max(largest, *found)
    return largest


def _range(value_NX: np.ndarray) -> np.ndarray:
    known_NX = np.isfinite(value_NX)
    low_X = np.where(known_NX, value_NX, np.inf).min(axis=0)
    high_X = np.where(known_NX, value_NX, -np.inf).max(axis=0)
    seen_X = known_NX.any(axis=0)
    return np.where(seen_X, np.stack([low_X, high_X]), np.nan)
