"""Every method on tasks of a category that it has learnt nothing of."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dcft_jax.meta.baselines import METHODS, Method, proportional
from dcft_jax.meta.case import Case
from dcft_jax.meta.families import TEST_TASKS
from dcft_jax.meta.features import keep_parts
from dcft_jax.meta.fit import DEFAULT, Options, fit
from dcft_jax.meta.predict import predict, size_prior
from dcft_jax.meta.regret import (
    Solved,
    mean_over_seeds,
    measured_mixtures,
    nearest_mixture,
)
from dcft_jax.meta.surrogate import evaluate
from dcft_jax.meta.until_uniform import share_until_uniform, stops_of


class Row(NamedTuple):
    """What a method's mixture for one case costs.

    Attributes:
        regret: by the case's law, nats per response token.
        relative: over the spread of the case's losses.
        measured: by the models that were trained: the loss of the mixture nearest to
            it, mean over seeds, less that of the best; nan where none is within `NEAR`.
        measured_relative: over the spread of the case's losses.
        measured_accuracy: the best exact match of a mixture, mean over seeds, less
            that of the nearest; nan also where it was not measured.
        trusted: False: the prior, because the network did not trust itself.
        seed: of the ensemble; 0 for methods without one.
        until_uniform: see `share_until_uniform`, by the same models.
    """

    method: str
    world: str
    task: str
    category: str
    weights_K: np.ndarray
    regret: float
    relative: float
    measured: float
    measured_relative: float
    measured_accuracy: float
    trusted: bool
    seed: int
    until_uniform: float = float("nan")


def leave_one_category_out(
    solved: Sequence[Solved],
    *,
    options: Options = DEFAULT,
    seeds: Sequence[int] = range(5),
    methods: Mapping[str, Method] = METHODS,
    part: str = "all",
    teachers: Sequence[Solved] | None = None,
    test_tasks: Collection[str] | None = None,
    test_worlds: Collection[str] | None = None,
    proved: Sequence[Case] = (),
    progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """For every category: learns from the others, chooses mixtures for its tasks.

    The prior of the network is its own (`size_prior`), that of the other methods
    proportional to the sizes. A task that is itself an ability of a world
    is no new task there: such cases are learnt from, but not tested on.

    Args:
      solved: the cases, with the laws that mixtures are judged by.
      seeds: of the ensembles, method "meta"; none: only the other methods.
      part: of the embedding that the network and the methods see, of `PARTS`.
      teachers: the same cases with the laws that are learnt from; None: `solved`.
      test_tasks: the tasks to test on; neither they nor any of `families.TEST_TASKS`
        are learnt from. None: all tasks, in turn.
      test_worlds: the worlds to test in; None: all. They are learnt from, but for the
        tasks that are tested.
      proved: cases of all models to look for a chosen mixture in, also of those that
        nothing is learnt from (see `prove`); a case that is not there is looked for in
        its own models.
      progress: is told what comes next.

    Raises:
      ValueError: nothing to test on, or categories without cases of others to learn
        from.
    """
    teachers = solved if teachers is None else teachers
    solved, teachers = _only(part, solved), _only(part, teachers)
    reserved = frozenset() if test_tasks is None else {*test_tasks, *TEST_TASKS}
    trained = stops_of(proved)

    def row(one: Solved, weights_K, trusted: bool, method: str, seed: int = 0) -> Row:
        known = trained.get((one.case.world, one.case.task), [one.case])
        return _row(one, known, weights_K, trusted, method, seed)

    rows = []
    tested = [one for one in solved if _is_tested(one.case, test_tasks, test_worlds)]
    if not tested:
        raise ValueError(
            f"test_tasks={test_tasks}: no case of such a task that is to be tested "
            f"among {len(solved)} cases"
        )
    for category in sorted({one.case.category for one in tested}):
        train = [
            one
            for one in teachers
            if one.case.category != category and one.case.task not in reserved
        ]
        if not train:
            raise ValueError(
                f"category {category!r}: no case of another category to learn from"
            )
        test = [one for one in tested if one.case.category == category]
        progress(f"{category}: {len(train)} cases to learn from, {len(test)} to test")
        rows += [
            row(one, _chosen(method, train, one), True, name)
            for name, method in methods.items()
            for one in test
        ]
        for seed in seeds:
            fitted = fit(train, options._replace(seed=seed))
            for one in test:
                features = one.case.features
                prior_K = size_prior(fitted, features.size_K)
                found = predict(fitted, features, prior_K)
                rows.append(row(one, found.weights_K, found.trusted, "meta", seed))
    return rows


def measured_regret(case: Case, weights_K: np.ndarray) -> tuple[float, float]:
    """In loss and in accuracy, see `Row.measured` and `Row.measured_accuracy`."""
    nearest = nearest_mixture(case, weights_K)
    if nearest is None:
        return float("nan"), float("nan")
    _, loss_U = measured_mixtures(case)
    accuracy_U = mean_over_seeds(case, case.accuracy_N)
    best = np.fmax.reduce(accuracy_U)
    return (
        float(loss_U[nearest] - loss_U.min()),
        float(best - accuracy_U[nearest]),
    )


def _is_tested(
    case: Case, tasks: Collection[str] | None, worlds: Collection[str] | None
) -> bool:
    wanted = (tasks is None or case.task in tasks) and (
        worlds is None or case.world in worlds
    )
    return wanted and case.task not in case.abilities


def _only(part: str, solved: Sequence[Solved]) -> list[Solved]:
    return [
        one._replace(
            case=one.case._replace(features=keep_parts(one.case.features, part))
        )
        for one in solved
    ]


def _chosen(method: Method, train: Sequence[Solved], one: Solved) -> np.ndarray:
    prior_K = proportional(train, one.case, one.best_K)
    return method(train, one.case, prior_K)


def _row(
    one: Solved, stops: Sequence[Case], weights_K, trusted: bool, method: str, seed: int
) -> Row:
    weights_K = np.asarray(weights_K, np.float64)
    weights_K = weights_K / weights_K.sum()
    cost = float(evaluate(one.law, weights_K)) - one.minimum
    measured, measured_accuracy = measured_regret(stops[0], weights_K)
    return Row(
        method=method,
        world=one.case.world,
        task=one.case.task,
        category=one.case.category,
        weights_K=weights_K,
        regret=cost,
        relative=cost / one.spread,
        measured=measured,
        measured_relative=measured / one.spread,
        measured_accuracy=measured_accuracy,
        trusted=trusted,
        seed=seed,
        until_uniform=share_until_uniform(stops, weights_K),
    )
