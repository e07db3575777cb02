"""What the meta-network learns from: one task, some abilities, and mixtures tried."""

from typing import NamedTuple

import numpy as np

from dcft_jax.meta.features import Features


class Case(NamedTuple):
    """Models trained on different mixtures of the same abilities, measured on a task.

    N trained models, all from the same base, for the same budget.

    Attributes:
        world: names base, abilities and budget; cases of one world share their models.
        task: name of the task.
        category: of the task; whole categories are held out together.
        abilities: names, K of them.
        features: of the task next to the abilities.
        weights_NK: the mixture of each model, averaged over its run.
        loss_N: nats per response token of the task at the end.
        accuracy_N: exact match at the end; nan where not measured.
        seed_N: models of one seed saw the same data order and are compared in pairs.
        before: the loss of the base; nan where not measured.
    """

    world: str
    task: str
    category: str
    abilities: tuple[str, ...]
    features: Features
    weights_NK: np.ndarray
    loss_N: np.ndarray
    accuracy_N: np.ndarray
    seed_N: np.ndarray
    before: float = float("nan")
