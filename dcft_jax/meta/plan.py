"""What a population of models is trained on: settings, and rows for every step.

Axes: N models, T steps, B rows of a step, R rows of the bank, K abilities.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dcft_jax.data import ROW_FIELDS, Rows
from dcft_jax.mixture.allocation import allocate


@dataclasses.dataclass(frozen=True)
class Training:
    """How the models are trained. Raises ValueError if a field is out of range.

    Attributes:
        steps: in all.
        rows: B, of a step.
        chunk: steps of one call of the program; the state is saved after each.
        stops: further steps at which all models are evaluated, besides the last; the
            learning rate has not come down there.
        learning_rate: of AdamW (arXiv:1711.05101), after `warmup` steps and until the
            last `decay_share` of the steps, over which it goes to 0.
        weight_decay, clip_norm: of AdamW, and of each model's gradient.
    """

    steps: int = 200
    rows: int = 4
    chunk: int = 20
    stops: tuple[int, ...] = ()
    learning_rate: float = 3e-3
    warmup: int = 10
    decay_share: float = 0.3
    weight_decay: float = 0.01
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        for field in ("steps", "rows", "chunk", "learning_rate", "clip_norm"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field}={getattr(self, field)} must be positive")
        for stop in (*self.stops, self.steps):
            if stop % self.chunk or not 0 < stop <= self.steps:
                raise ValueError(
                    f"stop at step {stop}: steps={self.steps} and all stops must be "
                    f"multiples of chunk={self.chunk}, and no stop after the last step"
                )
        if not (0 <= self.warmup <= self.steps and 0 <= self.decay_share <= 1):
            raise ValueError(
                f"warmup={self.warmup} must be from 0 to steps={self.steps} and "
                f"decay_share={self.decay_share} from 0 to 1"
            )

    def learning_rates(self) -> np.ndarray:
        """Of each step, float32 [T]."""
        step_T = np.arange(self.steps)
        decay = max(round(self.steps * self.decay_share), 1)
        rising_T = (step_T + 1) / max(self.warmup, 1)
        falling_T = (self.steps - step_T) / decay
        shape_T = np.minimum(np.minimum(rising_T, falling_T), 1.0)
        return (self.learning_rate * shape_T).astype(np.float32)


class Plan(NamedTuple):
    """What every model reads.

    Attributes:
        row_TNB: int32, which row of the bank.
        scale_TNB: float32, what a response token of the row counts in the loss.
    """

    row_TNB: np.ndarray
    scale_TNB: np.ndarray


def make_bank(rows: Sequence[Rows], size: int = 0) -> dict[str, np.ndarray]:
    """Rows of all abilities, one after the other, [R, L], keyed by `ROW_FIELDS`.

    Args:
      size: R at least, filled with padding, so that banks of one size share a program.
    """
    missing = max(size - sum(map(len, rows)), 0)
    bank = {}
    for name in ROW_FIELDS:
        whole = np.concatenate([getattr(one, f"{name}_NL") for one in rows])
        bank[name] = np.pad(whole, ((0, missing), (0, 0)))
    return bank


def make_plan(
    weights_NK: np.ndarray,
    seed_N: Sequence[int],
    rows: Sequence[Rows],
    training: Training,
) -> Plan:
    """Allocates the rows of every step of every model; deterministic.

    An ability's gradient is the mean over its response tokens in the step and counts as
    the ability's share of the rows does, as in `dcft_jax.training.step` with the
    actuator "sample".

    Args:
      weights_NK: on the simplex.
      seed_N: of the order of each ability's rows, which is another one in every epoch.
      rows: of each ability; the bank is made of them in this order.

    Raises:
      ValueError: weights off the simplex, or of other shapes than `seed_N` and `rows`.
    """
    if weights_NK.shape != (len(seed_N), len(rows)):
        raise ValueError(
            f"weights_NK of shape {weights_NK.shape} must be of "
            f"{(len(seed_N), len(rows))}: {len(seed_N)} seeds, {len(rows)} abilities"
        )
    needed = training.steps * training.rows
    streams = {
        (seed, k): _order(seed, k, len(one), needed)
        for seed in set(seed_N)
        for k, one in enumerate(rows)
    }
    first_K = np.concatenate([[0], np.cumsum([len(one) for one in rows])])
    tokens_R = np.concatenate([one.loss_mask_NL.sum(axis=1) for one in rows])
    shape = (training.steps, len(seed_N), training.rows)
    row_TNB, scale_TNB = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for n, seed in enumerate(seed_N):
        position_K = np.zeros(len(rows), np.int64)
        credit_K = np.zeros(len(rows), np.float32)
        for t in range(training.steps):
            counts_K, credit_K = allocate(weights_NK[n], credit_K, training.rows)
            start = 0
            for k in np.flatnonzero(counts_K).tolist():
                end = start + counts_K[k]
                stop = position_K[k] + counts_K[k]
                chosen = first_K[k] + streams[seed, k][position_K[k] : stop]
                row_TNB[t, n, start:end] = chosen
                share = counts_K[k] / training.rows
                scale_TNB[t, n, start:end] = share / max(tokens_R[chosen].sum(), 1)
                start = end
            position_K += counts_K
    return Plan(row_TNB, scale_TNB)


def _order(seed: int, ability: int, num_rows: int, needed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, ability])
    epochs = -(-needed // num_rows)
    return np.concatenate([rng.permutation(num_rows) for _ in range(epochs)])
