"""What the meta-network sees of a task next to the abilities that may be mixed for it.

Text similarity alone predicts transfer poorly (Skill-It, arXiv:2307.14430; Domain2Vec,
arXiv:2506.10952), so most features are losses and inner products of gradients of the
base model. Everything is nan where it was not measured.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Of the task, [G].
TASK = (
    "loss",  # nats per response token of the base model on the support set
    "accuracy",  # teacher-forced exact match of the base model
    "prompt_tokens",  # log of the mean
    "response_tokens",  # log of the mean
    "support",  # log of the number of support examples
    "budget",  # log of the tokens that will be trained on
    "parameters",  # log of the number of the model's parameters
)

# Of each ability, next to the task, [K, F].
ABILITY = (
    "loss",  # nats per response token of the base model on its own mix-val rows
    "loss_ratio",  # log of that over the task's
    "alignment",  # cosine of the mean gradients of task and ability, noise removed
    "alignment_stderr",  # how little is known of it
    "gain",  # inner product of the gradients over the squared norm of the task's
    "kernel",  # centred cosine of mean hidden states of task and ability
    "prompt_tokens",  # log of the mean over that of the task
    "response_tokens",  # log of the mean over that of the task
    "share",  # log of its share of the rows that there are
    "epochs",  # log of its epochs if the whole budget went to it
)

# Between two abilities, [K, K, P]; symmetric.
PAIR = (
    "alignment",  # cosine of the mean gradients, noise removed; 1 on the diagonal
    "kernel",  # centred cosine of mean hidden states
)

# Parts of the embedding that an ablation leaves in: (names of TASK, ABILITY, PAIR).
_SIZES = (("support", "budget", "parameters"), ("share", "epochs"), ())
_LOSSES = (("loss", "accuracy"), ("loss", "loss_ratio"), ())
_ALIGNMENT = ((), ("alignment", "alignment_stderr", "gain"), ("alignment",))
_HIDDEN = ((), ("kernel",), ("kernel",))
_LENGTHS = (
    ("prompt_tokens", "response_tokens"),
    ("prompt_tokens", "response_tokens"),
    (),
)
PARTS = {
    "sizes": (_SIZES,),
    "losses": (_SIZES, _LOSSES),
    "alignment": (_SIZES, _ALIGNMENT),
    "hidden": (_SIZES, _HIDDEN),
    "all": (_SIZES, _LOSSES, _ALIGNMENT, _HIDDEN, _LENGTHS),
}


class Features(NamedTuple):
    """Of one task and K abilities; float32, nan: not measured.

    Attributes:
        task_G: in the order of `TASK`.
        ability_KF: in the order of `ABILITY`.
        pair_KKP: in the order of `PAIR`.
        size_K: rows of each ability, positive; the prior is proportional to a power
            of it.
    """

    task_G: np.ndarray
    ability_KF: np.ndarray
    pair_KKP: np.ndarray
    size_K: np.ndarray

    @property
    def num_abilities(self) -> int:
        return len(self.size_K)


def check(features: Features) -> Features:
    """The same features.

    Raises:
      ValueError: a shape or a size that cannot be; the message names the array.
    """
    K = features.num_abilities
    expected = {
        "task_G": (len(TASK),),
        "ability_KF": (K, len(ABILITY)),
        "pair_KKP": (K, K, len(PAIR)),
        "size_K": (K,),
    }
    for name, shape in expected.items():
        found = np.shape(getattr(features, name))
        if found != shape:
            raise ValueError(f"features.{name} has shape {found}, expected {shape}")
    if not np.all(np.isfinite(features.size_K) & (np.asarray(features.size_K) > 0)):
        raise ValueError(f"features.size_K is {features.size_K}, expected sizes > 0")
    return features


def permute(features: Features, order: Sequence[int]) -> Features:
    """The same task with the abilities in another order."""
    order = list(order)
    return Features(
        features.task_G,
        features.ability_KF[order],
        features.pair_KKP[order][:, order],
        features.size_K[order],
    )


def keep_parts(features: Features, part: str) -> Features:
    """Everything that is not in this part of the embedding becomes missing.

    Raises:
      ValueError: an unknown part.
    """
    if part not in PARTS:
        raise ValueError(f"part {part!r} of the embedding: there are {(*PARTS,)}")

    def kept(array: np.ndarray, all_names: Sequence[str], index: int) -> np.ndarray:
        names = {name for group in PARTS[part] for name in group[index]}
        return np.where([name in names for name in all_names], array, np.nan)

    return features._replace(
        task_G=kept(features.task_G, TASK, 0).astype(np.float32),
        ability_KF=kept(features.ability_KF, ABILITY, 1).astype(np.float32),
        pair_KKP=kept(features.pair_KKP, PAIR, 2).astype(np.float32),
    )
