"""Features as the network sees them: standardised, with what is missing marked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dcft_jax.meta.features import ABILITY, PAIR, PARTS, TASK, Features, check

CLIP = 5.0  # standard deviations; one odd number must not drown the others
# Parts that a task may come without; the sizes are always known.
DROPPABLE = PARTS["all"][1:]


class Statistics(NamedTuple):
    """Mean and standard deviation of every feature over the training cases."""

    task_mean_G: np.ndarray
    task_scale_G: np.ndarray
    ability_mean_F: np.ndarray
    ability_scale_F: np.ndarray
    pair_mean_P: np.ndarray
    pair_scale_P: np.ndarray


class Inputs(NamedTuple):
    """Of one task; or of C of them, on a leading axis, padded to a common K.

    `known_*` are 1 where a feature was measured and 0 where it was not; its value is
    then 0, which after standardisation is the mean.
    """

    task_G: Any
    known_task_G: Any
    ability_KF: Any
    known_ability_KF: Any
    pair_KKP: Any
    known_pair_KKP: Any
    valid_K: Any  # bool: an ability, not padding


def measure_statistics(features: Sequence[Features]) -> Statistics:
    """Of the known values; scale 1 for a constant, inf for a feature never measured.

    The diagonal of pairs, an ability with itself, does not count.
    """
    task_CG = np.stack([one.task_G for one in features])
    ability_NF = np.concatenate([one.ability_KF for one in features])
    pair_NP = np.concatenate(
        [one.pair_KKP[~np.eye(one.num_abilities, dtype=bool)] for one in features]
    )
    moments = [_moments(array) for array in (task_CG, ability_NF, pair_NP)]
    return Statistics(*(array for pair in moments for array in pair))


def standardise(statistics: Statistics, features: Features) -> Inputs:
    """Features of one task for the network; see `check` for errors.

    What was never measured in training counts as missing, measured or not.
    """
    check(features)
    task_G, known_task_G = _standard(
        features.task_G, statistics.task_mean_G, statistics.task_scale_G
    )
    ability_KF, known_ability_KF = _standard(
        features.ability_KF, statistics.ability_mean_F, statistics.ability_scale_F
    )
    pair_KKP, known_pair_KKP = _standard(
        features.pair_KKP, statistics.pair_mean_P, statistics.pair_scale_P
    )
    return Inputs(
        task_G,
        known_task_G,
        ability_KF,
        known_ability_KF,
        pair_KKP,
        known_pair_KKP,
        np.ones(features.num_abilities, bool),
    )


def pad_inputs(inputs: Inputs, num_abilities: int) -> Inputs:
    """The same task with abilities added that are not valid."""
    more = num_abilities - len(inputs.valid_K)
    one, two = ((0, more), (0, 0)), ((0, more), (0, more), (0, 0))
    return inputs._replace(
        ability_KF=np.pad(inputs.ability_KF, one),
        known_ability_KF=np.pad(inputs.known_ability_KF, one),
        pair_KKP=np.pad(inputs.pair_KKP, two),
        known_pair_KKP=np.pad(inputs.known_pair_KKP, two),
        valid_K=np.pad(inputs.valid_K, (0, more)),
    )


def drop(inputs: Inputs, keep_D: Any) -> Inputs:
    """Only the parts of `DROPPABLE` with `keep_D` 1 stay known."""
    masks = _group_masks()
    kept = []
    for mask_DX in masks:
        # 1 for a feature of no part.
        kept.append(1.0 - (1.0 - keep_D) @ mask_DX)
    keep_G, keep_F, keep_P = kept
    return inputs._replace(
        task_G=inputs.task_G * keep_G,
        known_task_G=inputs.known_task_G * keep_G,
        ability_KF=inputs.ability_KF * keep_F,
        known_ability_KF=inputs.known_ability_KF * keep_F,
        pair_KKP=inputs.pair_KKP * keep_P,
        known_pair_KKP=inputs.known_pair_KKP * keep_P,
    )


def _group_masks() -> list[np.ndarray]:
    """For TASK, ABILITY and PAIR: which part, [D], each feature is in."""
    return [
        np.array(
            [[float(name in part[i]) for name in names] for part in DROPPABLE],
            np.float32,
        )
        for i, names in enumerate((TASK, ABILITY, PAIR))
    ]


def _moments(value_NX: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known_NX = np.isfinite(value_NX)
    count_X = np.maximum(known_NX.sum(axis=0), 1)
    filled_NX = np.where(known_NX, value_NX, 0.0).astype(np.float64)
    mean_X = filled_NX.sum(axis=0) / count_X
    square_NX = np.where(known_NX, (filled_NX - mean_X) ** 2, 0.0)
    scale_X = np.sqrt(square_NX.sum(axis=0) / count_X)
    # Rounding of equal values is no spread.
    flat_X = scale_X <= 1e-6 * (1.0 + np.abs(mean_X))
    scale_X = np.where(flat_X, 1.0, scale_X)
    scale_X = np.where(known_NX.any(axis=0), scale_X, np.inf)
    return mean_X.astype(np.float32), scale_X.astype(np.float32)


def _standard(value, mean, scale) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(value) & np.isfinite(scale)
    standard = np.clip((np.where(known, value, mean) - mean) / scale, -CLIP, CLIP)
    return standard.astype(np.float32), known.astype(np.float32)
