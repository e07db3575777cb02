"""Worlds: some abilities of unequal sizes, and the mixtures that are tried on them."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dcft_jax.data.fetch.store import CACHE
from dcft_jax.evaluation import emerging
from dcft_jax.meta.families import FAMILIES
from dcft_jax.meta.measure import MAX_SUPPORT, MIN_SUPPORT
from dcft_jax.meta.plan import Training
from dcft_jax.meta.published import PUBLISHED

JOINT = 0.3  # share of the abilities that have two families


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of a collection. Raises ValueError if a field is out of range.

    Attributes:
        seed: of everything that is drawn.
        models: N, trained in every world.
        repeats: how many of them repeat a mixture with another order of the data.
        concentrations: of the Dirichlet distributions that mixtures are drawn from.
        min_abilities, max_abilities: K of a world.
        min_examples, max_examples: train examples of an ability, log-uniform.
        tasks: that models are measured on, abilities excepted; families of
            `dcft_jax.meta.families`, emerging ones and published ones.
        support, test: examples that describe a task, and that it is measured on.
        vocab_size, seq_len, max_predicted: tokens there are, of a row, and that are
            predicted in a row at most.
        width, num_layers: see `proxy_model`.
        training: of the populations; its stops make a world of a smaller budget each.
        base_steps: of the bases, which the worlds take in turn.
        base_rows, base_learning_rate: of their training.
        base_share: of the families that a base is trained on, others for each base: a
            base that knows all tasks has nothing to gain from any mixture.
        interpolate: measure interpolated specialists as well: the corner models.
        specialist_rank: measure interpolated adapters of this rank as well, for which
            each ability has a specialist trained besides; 0: none. The worlds are the
            same whatever it is, and specialists are added to those that are there.
        directory: where published tasks were fetched to.
    """

    seed: int = 0
    models: int = 18
    repeats: int = 2
    concentrations: tuple[float, ...] = (0.3, 1.0, 3.0)
    min_abilities: int = 2
    max_abilities: int = 5
    min_examples: int = 150
    max_examples: int = 1500
    tasks: tuple[str, ...] = (*FAMILIES, *emerging.FAMILIES)
    support: int = 64
    test: int = 32
    vocab_size: int = 640
    seq_len: int = 192
    max_predicted: int = 96
    width: int = 64
    num_layers: int = 2
    training: Training = Training(  # noqa: RUF009 (frozen)
        steps=160, rows=8, stops=(80,), learning_rate=1.5e-3
    )
    base_steps: tuple[int, ...] = (160, 320, 640, 160, 320, 640)
    base_rows: int = 8
    base_learning_rate: float = 3e-3
    base_share: float = 0.5
    interpolate: bool = True
    specialist_rank: int = dataclasses.field(default=0, repr=False)
    directory: str = dataclasses.field(default=CACHE, repr=False)

    def __post_init__(self) -> None:
        if not 2 <= self.min_abilities <= self.max_abilities <= len(self.families) // 2:
            raise ValueError(
                f"min_abilities={self.min_abilities} and max_abilities="
                f"{self.max_abilities} must be from 2 to {len(self.families) // 2}, "
                "half of the families among the tasks"
            )
        needed = self.max_abilities + 2 + self.repeats
        if self.models < needed or self.repeats < 0:
            raise ValueError(
                f"models={self.models} must be at least {needed}: max_abilities + 2 + "
                f"repeats, with repeats={self.repeats} not negative"
            )
        if not 1 <= self.min_examples <= self.max_examples:
            raise ValueError(
                f"min_examples={self.min_examples} must be from 1 to "
                f"max_examples={self.max_examples}"
            )
        if not MIN_SUPPORT <= self.support <= MAX_SUPPORT:
            raise ValueError(
                f"support={self.support} must be from {MIN_SUPPORT} to {MAX_SUPPORT}"
            )
        for field in ("test", "vocab_size", "seq_len", "max_predicted", "base_rows"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} must be at least 1")
        if self.specialist_rank < 0:
            raise ValueError(
                f"specialist_rank={self.specialist_rank} must not be negative"
            )
        if not 0 < self.base_share <= 1:
            raise ValueError(f"base_share={self.base_share} must be in (0, 1]")
        if not self.base_steps or not self.concentrations:
            raise ValueError("base_steps and concentrations must not be empty")
        for base in range(len(self.base_steps)):
            self.base_training(base)  # refuses steps that are out of range

    @property
    def families(self) -> tuple[str, ...]:
        """The tasks that abilities are made of."""
        return tuple(task for task in self.tasks if task in FAMILIES)

    def base_training(self, base: int) -> Training:
        """Of the base with this index."""
        return dataclasses.replace(
            self.training,
            steps=self.base_steps[base],
            rows=self.base_rows,
            learning_rate=self.base_learning_rate,
            stops=(),
        )

    @property
    def identity(self) -> str:
        """Of all that a population depends on: every field that `repr` shows."""
        return hashlib.blake2b(repr(self).encode(), digest_size=8).hexdigest()


def with_published(settings: Settings) -> Settings:
    """Measured on the published tasks as well."""
    return dataclasses.replace(settings, tasks=(*settings.tasks, *PUBLISHED))


def smoke() -> Settings:
    """As small as it gets, to see that everything runs."""
    return Settings(
        models=6,
        repeats=1,
        min_abilities=2,
        max_abilities=2,
        min_examples=40,
        max_examples=80,
        tasks=("lcm", "gcd", "count_primes", "simple_equations", "time_intervals"),
        support=16,
        test=8,
        vocab_size=400,
        seq_len=192,
        max_predicted=96,
        width=32,
        num_layers=1,
        training=Training(steps=6, rows=4, chunk=2, stops=(4,), warmup=2),
        base_steps=(4,),
        base_rows=4,
    )


class World(NamedTuple):
    """What is the same for all models of a world.

    Attributes:
        number: of the world.
        base: index of its base in `Settings.base_steps`.
        abilities: the families of each.
        examples_K: train examples of each.
    """

    number: int
    base: int
    abilities: tuple[tuple[str, ...], ...]
    examples_K: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the abilities; a joint one is `first+second`."""
        return tuple("+".join(families) for families in self.abilities)


def draw_world(settings: Settings, number: int) -> World:
    """The same every time; no family is in two abilities."""
    rng = np.random.default_rng([settings.seed, number])
    num_abilities = rng.integers(settings.min_abilities, settings.max_abilities + 1)
    left = list(rng.permutation(settings.families))
    abilities = []
    for _ in range(num_abilities):
        first = str(left.pop())
        kin = [x for x in left if FAMILIES[x].category == FAMILIES[first].category]
        second = []
        if kin and rng.random() < JOINT:
            second = [str(kin[0])]
            left.remove(kin[0])
        abilities.append((first, *second))
    low, high = np.log([settings.min_examples, settings.max_examples])
    examples_K = np.round(np.exp(rng.uniform(low, high, num_abilities))).astype(int)
    base = number % len(settings.base_steps)
    return World(number, base, tuple(abilities), tuple(examples_K.tolist()))


def base_families(settings: Settings, base: int) -> tuple[str, ...]:
    """What a base is trained on."""
    rng = np.random.default_rng([settings.seed, base, 2])
    number = max(round(settings.base_share * len(settings.families)), 1)
    chosen = set(rng.permutation(settings.families)[:number].tolist())
    return tuple(name for name in settings.families if name in chosen)


def draw_mixtures(
    settings: Settings, world: World, size_K: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """What the N models are trained on: weights_NK, and the seeds of their data.

    First the K vertices, then the uniform and the size-proportional mixture, then
    Dirichlet draws, each concentration in turn; the last `settings.repeats` repeat
    those from the uniform one on with another seed.
    """
    rng = np.random.default_rng([settings.seed, world.number, 1])
    K, repeats = len(size_K), settings.repeats
    size = np.asarray(size_K, np.float64)
    rows = [*np.eye(K), np.full(K, 1 / K), size / size.sum()]
    for number in range(settings.models - repeats - len(rows)):
        concentration = settings.concentrations[number % len(settings.concentrations)]
        rows.append(rng.dirichlet(np.full(K, concentration)))
    seed_N = np.zeros(settings.models, np.int64)
    seed_N[settings.models - repeats :] = 1
    rows += [rows[min(K + i, len(rows) - 1)] for i in range(repeats)]
    return np.array(rows), seed_N
