"""Simple ways to choose a mixture, which the meta-network has to beat.

All have the interface `(train, case, prior_K) -> weights_K`: solved cases of other
tasks, the case to choose for (only what is known before training: names and features),
and the prior. Only `oracle` looks at the losses of the case itself.
"""

from collections.abc import Callable, Sequence

import numpy as np

from dcft_jax.meta.case import Case
from dcft_jax.meta.features import ABILITY, PAIR, Features
from dcft_jax.meta.inputs import Statistics, measure_statistics, standardise
from dcft_jax.meta.regret import Solved, measured_mixtures
from dcft_jax.meta.surrogate import ridge_by_gcv

Method = Callable[[Sequence[Solved], Case, np.ndarray], np.ndarray]

NEIGHBOURS = 15
LEVERAGE_RIDGE = 0.1  # of Chameleon, for kernels whose diagonal is 1
LEVERAGE_TEMPERATURE = 0.2  # as its authors' program has it for fine-tuning


def uniform(train: Sequence[Solved], case: Case, prior_K: np.ndarray) -> np.ndarray:
    """The same for all abilities."""
    return np.full(len(prior_K), 1.0 / len(prior_K))


def proportional(
    train: Sequence[Solved], case: Case, prior_K: np.ndarray
) -> np.ndarray:
    """Proportional to the rows of each ability."""
    size_K = np.asarray(case.features.size_K, np.float64)
    return size_K / size_K.sum()


def mean_mixture(
    train: Sequence[Solved], case: Case, prior_K: np.ndarray
) -> np.ndarray:
    """See `mean_of_best`."""
    return mean_of_best(train, case.abilities, prior_K)


def mean_of_best(
    train: Sequence[Solved], abilities: Sequence[str], prior_K: np.ndarray
) -> np.ndarray:
    """The mean of the best mixtures of the training cases, ability by ability.

    Worlds differ in their abilities, so means are of one ability's weight, over the
    cases that have an ability of its name, relative to the mean of its share of the
    rows there; the prior is multiplied by that. An ability that no case had keeps its
    prior. Where all cases have the same abilities and sizes, and the prior is
    proportional to them, this is the mean of the mixtures.
    """
    best: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    for one in train:
        share_K = one.case.features.size_K / np.sum(one.case.features.size_K)
        names = one.case.abilities
        for name, weight, share in zip(names, one.best_K, share_K, strict=True):
            best.setdefault(name, []).append(weight)
            shares.setdefault(name, []).append(share)
    ratios = [
        float(np.mean(best[name]) / np.mean(shares[name])) if name in best else 1.0
        for name in abilities
    ]
    raw_K = np.asarray(prior_K, np.float64) * np.array(ratios)
    return raw_K / raw_K.sum()


def nearest(train: Sequence[Solved], case: Case, prior_K: np.ndarray) -> np.ndarray:
    """k nearest neighbours among abilities, not tasks, so that worlds may differ.

    An ability next to a task is described by its standardised features and by how they
    differ from those of the other abilities. Its log-ratio to the sizes is the mean of
    those of the `NEIGHBOURS` nearest abilities of the training cases. Missing: the
    mean.
    """
    statistics = measure_statistics([one.case.features for one in train])
    known_NX = np.concatenate(
        [_described(statistics, one.case.features) for one in train]
    )
    ratio_N = np.concatenate([_log_ratio(one) for one in train])
    ratio_K = []
    for described_X in _described(statistics, case.features):
        away_N = np.sum((known_NX - described_X) ** 2, axis=1)
        near_N = np.argsort(away_N, kind="stable")[:NEIGHBOURS]
        ratio_K.append(ratio_N[near_N].mean())
    return _tilted(prior_K, np.array(ratio_K))


def ridge(train: Sequence[Solved], case: Case, prior_K: np.ndarray) -> np.ndarray:
    """A linear score of each ability's standardised features, through a softmax.

    Ridge regression of the centred log-ratio of the best mixture to the sizes on
    features centred over the abilities of their case; missing: the mean. The features
    of the task are the same for all its abilities, and nothing in a linear score.
    """
    statistics = measure_statistics([one.case.features for one in train])
    column_NF = np.concatenate(
        [_centred(statistics, one.case.features) for one in train]
    )
    target_N = np.concatenate([_log_ratio(one) for one in train])
    score_F = ridge_by_gcv(column_NF, target_N)
    return _tilted(prior_K, _centred(statistics, case.features) @ score_F)


def chameleon(train: Sequence[Solved], case: Case, prior_K: np.ndarray) -> np.ndarray:
    """Leverage scores of the abilities' hidden states (arXiv:2505.24844, section 3).

    `softmax(S / T)`, the form for fine-tuning, with `S = diag(Omega (Omega + K lambda
    I)^-1)` scaled to sum 1, as the authors' program does, and Omega the centred kernel
    of the abilities (`PAIR`: "kernel"). It favours abilities that are unlike the
    others; the target task is not in it at all. The ridge is for kernels with a unit
    diagonal, not their 10 for raw hidden states. The prior where the kernel was not
    measured.
    """
    kernel_KK = _pair_kernel(case.features)
    if not np.all(np.isfinite(kernel_KK)):
        return np.asarray(prior_K, np.float64)
    score_K = np.diag(_hat(kernel_KK))
    return _softmax(score_K / score_K.sum() / LEVERAGE_TEMPERATURE)


def chameleon_target(
    train: Sequence[Solved], case: Case, prior_K: np.ndarray
) -> np.ndarray:
    """As `chameleon`, but with the task: not in the paper, and a fairer comparison.

    The task joins the kernel as one more domain; an ability's score is its entry in the
    task's row of the hat matrix, its part in the kernel ridge regression that predicts
    the task. Scaled by the largest size, so that signs stay.
    """
    to_task_K = np.asarray(
        case.features.ability_KF[:, ABILITY.index("kernel")], np.float64
    )
    kernel_KK = _pair_kernel(case.features)
    if not np.all(np.isfinite(kernel_KK)) or not np.all(np.isfinite(to_task_K)):
        return np.asarray(prior_K, np.float64)
    K = len(to_task_K)
    joint_JJ = np.eye(K + 1)
    joint_JJ[:K, :K] = kernel_KK
    joint_JJ[K, :K] = joint_JJ[:K, K] = to_task_K
    score_K = _hat(joint_JJ)[K, :K]
    size = np.abs(score_K).sum()
    return _softmax(score_K / max(size, 1e-9) / LEVERAGE_TEMPERATURE)


def oracle(train: Sequence[Solved], case: Case, prior_K: np.ndarray) -> np.ndarray:
    """The best mixture that was measured, by the mean of its seeds.

    Being the least of noisy losses, its own loss is a little too good.
    """
    weights_UK, loss_U = measured_mixtures(case)
    best_K = weights_UK[np.argmin(loss_U)]
    return best_K / best_K.sum()


METHODS: dict[str, Method] = {
    "uniform": uniform,
    "proportional": proportional,
    "mean": mean_mixture,
    "knn": nearest,
    "ridge": ridge,
    "chameleon": chameleon,
    "chameleon_target": chameleon_target,
    "oracle": oracle,
}


def _centred(statistics: Statistics, features: Features) -> np.ndarray:
    ability_KF = standardise(statistics, features).ability_KF.astype(np.float64)
    return ability_KF - ability_KF.mean(axis=0)


def _described(statistics: Statistics, features: Features) -> np.ndarray:
    ability_KF = standardise(statistics, features).ability_KF.astype(np.float64)
    return np.concatenate([ability_KF, _centred(statistics, features)], axis=1)


def _log_ratio(one: Solved) -> np.ndarray:
    """Of the best mixture to the sizes, centred."""
    ratio_K = np.log(one.best_K) - np.log(one.case.features.size_K)
    return ratio_K - ratio_K.mean()


def _pair_kernel(features: Features) -> np.ndarray:
    return np.asarray(features.pair_KKP[:, :, PAIR.index("kernel")], np.float64)


def _hat(kernel_KK: np.ndarray) -> np.ndarray:
    K = len(kernel_KK)
    return kernel_KK @ np.linalg.inv(kernel_KK + K * LEVERAGE_RIDGE * np.eye(K))


def _tilted(prior_K: np.ndarray, ratio_K: np.ndarray) -> np.ndarray:
    return _softmax(np.log(np.asarray(prior_K, np.float64)) + ratio_K)


def _softmax(logits_K: np.ndarray) -> np.ndarray:
    raw_K = np.exp(logits_K - logits_K.max())
    return raw_K / raw_K.sum()
