"""Cases whose best mixture is known, because their losses follow a law we choose."""

import numpy as np

from dcft_jax.meta.case import Case
from dcft_jax.meta.features import ABILITY, PAIR, TASK, Features
from dcft_jax.meta.fit import Options
from dcft_jax.meta.network import Shape

# The same in all tests, and at most 64 cases of at most 4 abilities: one program.
OPTIONS = Options(shape=Shape(width=16, heads=2), members=4, steps=100, batch=32)
CATEGORIES = ("algebra", "arithmetic", "code", "graphs", "logic")


def make_features(rng: np.random.Generator, num_abilities: int) -> Features:
    """Numbers of the usual sizes, without meaning; all measured."""
    K = num_abilities
    size_K = rng.integers(200, 2000, K).astype(np.float32)
    ability_KF = rng.standard_normal((K, len(ABILITY))).astype(np.float32)
    ability_KF[:, ABILITY.index("alignment")] = rng.uniform(-0.2, 0.9, K)
    ability_KF[:, ABILITY.index("share")] = np.log(size_K / size_K.sum())
    pair_KKP = np.zeros((K, K, len(PAIR)), np.float32)
    for p in range(len(PAIR)):
        vectors = rng.standard_normal((K, 4))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        pair_KKP[:, :, p] = vectors @ vectors.T
    task_G = rng.standard_normal(len(TASK)).astype(np.float32)
    task_G[TASK.index("budget")] = np.log(1e6)
    task_G[TASK.index("parameters")] = np.log(2e5)
    return Features(task_G, ability_KF, pair_KKP, size_K)


def make_mixtures(rng: np.random.Generator, num_abilities: int, count: int):
    """Corners, the middle, and Dirichlet draws; float32 [count, K]."""
    K = num_abilities
    drawn = rng.dirichlet(np.ones(K), count - K - 1)
    weights_NK = np.concatenate([np.eye(K), np.full((1, K), 1 / K), drawn])
    return weights_NK.astype(np.float32)


def make_case(
    rng: np.random.Generator,
    informative: bool = True,
    num_abilities: int = 3,
    count: int = 24,
    noise: float = 0.01,
    task: str = "task",
    category: str = "logic",
    world: str = "world",
) -> Case:
    """A case of the law `1 + 0.5 sum_k u_k exp(-4 w_k)`: the more useful, the more.

    The usefulness u_K (on the simplex) is a softmax of the alignments if the features
    are informative, of numbers that they do not hold otherwise.
    """
    features = make_features(rng, num_abilities)
    alignment_K = features.ability_KF[:, ABILITY.index("alignment")]
    hidden_K = alignment_K if informative else rng.uniform(-0.2, 0.9, num_abilities)
    useful_K = np.exp(5.0 * hidden_K)
    useful_K = useful_K / useful_K.sum()
    weights_NK = make_mixtures(rng, num_abilities, count)
    loss_N = 1.0 + 0.5 * np.exp(-4.0 * weights_NK) @ useful_K
    loss_N = loss_N + noise * rng.standard_normal(count)
    return Case(
        world=world,
        task=task,
        category=category,
        abilities=tuple(f"{world}-{k}" for k in range(num_abilities)),
        features=features,
        weights_NK=weights_NK,
        loss_N=loss_N.astype(np.float32),
        accuracy_N=np.full(count, np.nan, np.float32),
        seed_N=np.zeros(count, np.int32),
    )


def make_cases(
    informative: bool = True,
    tasks_per_category: int = 3,
    num_worlds: int = 3,
    seed: int = 0,
    **options,
) -> list[Case]:
    """Every task of every category in every world; worlds have 2 to 4 abilities."""
    rng = np.random.default_rng(seed)
    cases = []
    for w in range(num_worlds):
        for category in CATEGORIES:
            for t in range(tasks_per_category):
                case = make_case(
                    rng,
                    informative,
                    num_abilities=2 + w % 3,
                    task=f"{category}-{t}",
                    category=category,
                    world=f"world-{w}",
                    **options,
                )
                cases.append(case)
    return cases
