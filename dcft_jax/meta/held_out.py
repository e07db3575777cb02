"""How well a surrogate law predicts models that it was not fitted to."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dcft_jax.meta.case import Case
from dcft_jax.meta.regret import same_mixture
from dcft_jax.meta.surrogate import MIN_MODELS, evaluate, fit_laws

FOLDS = 5


class HeldOutError(NamedTuple):
    """Of one case; nan where it cannot be known (losses that do not differ).

    Attributes:
        r2: 1 - squared error over that of the mean of the models fitted to; below 0:
            worse than no law.
        spearman: rank correlation of predicted and measured losses.
        rmse: nats per response token.
    """

    r2: float
    spearman: float
    rmse: float


def held_out_errors(
    kind: str, cases: Sequence[Case], folds: int = FOLDS
) -> list[HeldOutError]:
    """Cross-validated error of one kind of law on each case.

    Models of one mixture are held out together: other seeds of a mixture would give
    it away. Which mixtures go together is drawn once and for all.

    Raises:
      ValueError: a case has fewer distinct mixtures than folds, or too few for a law;
        see `fit_laws` for the others.
    """
    tried, masks, where = [], [], []
    for c, case in enumerate(cases):
        for fold, held_N in enumerate(_folds(case, folds)):
            tried.append(case)
            masks.append(~held_N)
            where.append((c, fold, held_N))
    predicted = [np.zeros(len(case.loss_N)) for case in cases]
    mean = [np.zeros(len(case.loss_N)) for case in cases]
    for law, (c, _, held_N) in zip(fit_laws(kind, tried, masks), where, strict=True):
        predicted[c][held_N] = evaluate(law, cases[c].weights_NK[held_N])
        mean[c][held_N] = np.mean(cases[c].loss_N[~held_N])
    return [
        _error(np.asarray(case.loss_N, np.float64), predicted[c], mean[c])
        for c, case in enumerate(cases)
    ]


def held_out_error(kind: str, case: Case, folds: int = FOLDS) -> HeldOutError:
    """See `held_out_errors`."""
    return held_out_errors(kind, [case], folds)[0]


def summarise(errors: Sequence[HeldOutError]) -> dict[str, Any]:
    """Medians over cases; None: known of none of them."""
    table = {}
    for name in HeldOutError._fields:
        found = np.array([getattr(error, name) for error in errors])
        found = found[np.isfinite(found)]
        table[name] = float(np.median(found)) if len(found) else None
    return table


def _folds(case: Case, folds: int) -> list[np.ndarray]:
    group_N = same_mixture(case)
    number = int(group_N.max()) + 1
    if number < max(folds, 2):
        raise ValueError(
            f"case of task {case.task!r} in world {case.world!r} has {number} distinct "
            f"mixtures, {folds} folds need as many; collect more or ask for fewer folds"
        )
    fold_U = np.random.default_rng(0).permutation(number) % folds
    held = [fold_U[group_N] == fold for fold in range(folds)]
    fewest = min(int(np.sum(~held_N)) for held_N in held)
    if fewest < MIN_MODELS:
        raise ValueError(
            f"case of task {case.task!r} in world {case.world!r}: a fold leaves "
            f"{fewest} models to fit, a law needs {MIN_MODELS}; collect more mixtures"
        )
    return held


def _error(loss_N, predicted_N, mean_N) -> HeldOutError:
    squares = np.sum((loss_N - predicted_N) ** 2)
    flat = np.sum((loss_N - mean_N) ** 2)
    r2 = float(1.0 - squares / flat) if flat > 0 else float("nan")
    rmse = float(np.sqrt(squares / len(loss_N)))
    return HeldOutError(r2, spearman(predicted_N, loss_N), rmse)


def spearman(first_N: np.ndarray, second_N: np.ndarray) -> float:
    """Rank correlation (Spearman 1904), ties at their mean rank; nan without order."""
    first_N, second_N = _ranks(first_N), _ranks(second_N)
    first_N, second_N = first_N - first_N.mean(), second_N - second_N.mean()
    size = np.sqrt(np.sum(first_N**2) * np.sum(second_N**2))
    return float(np.sum(first_N * second_N) / size) if size > 0 else float("nan")


def _ranks(value_N: np.ndarray) -> np.ndarray:
    _, inverse_N, count_U = np.unique(value_N, return_inverse=True, return_counts=True)
    last_U = np.cumsum(count_U)
    return (last_U - (count_U - 1) / 2.0)[inverse_N.reshape(-1)]
