"""Optimisation problems with known answers, and the loop that runs a resolver on them.

Objectives are functions `x_N -> loss_K`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from dcft_jax.conflict import Resolver, resolve_gradients


class Path(NamedTuple):
    x_TN: jax.Array  # T + 1 of them: the end is there, too
    coefficients_TK: jax.Array
    update_TN: jax.Array


def noiseless(key: jax.Array) -> jax.Array:
    return jnp.zeros(())


def descend(
    objectives: Callable[[jax.Array], jax.Array],
    resolver: Resolver,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    weights_K: jax.Array,
    start_N: jax.Array,
    noise: Callable[[jax.Array], jax.Array] = noiseless,
    seed: jax.Array | int = 0,
) -> Path:
    """One path, to be jitted and vmapped; `noise(key)` is added to the gradients."""

    def step(carry, key):
        x_N, state, optimizer_state = carry
        grads_KN = jax.jacrev(objectives)(x_N) + noise(key)
        loss_K = objectives(x_N)
        update_N, state, info = resolve_gradients(
            grads_KN, weights_K, resolver, state, loss_K=loss_K
        )
        change_N, optimizer_state = optimizer.update(update_N, optimizer_state)
        seen = Path(x_N, info.coefficients_K, update_N)
        return (x_N + change_N, state, optimizer_state), seen

    keys_T = jax.random.split(jax.random.key(seed), num_steps)
    start = (start_N, resolver.init(len(weights_K)), optimizer.init(start_N))
    (end_N, _, _), path = lax.scan(step, start, keys_T)
    return path._replace(x_TN=jnp.concatenate([path.x_TN, end_N[None]]))


# --------------------------------------------------- two tasks with two steep ridges

TOY_STARTS = np.float32([(-8.5, 7.5), (0, 0), (9, 9), (-7.5, -0.5), (9, -1)])
TOY_VALLEY = -8.3552  # second coordinate of the Pareto set; the first is in [-7, 7]


def toy(x_N: jax.Array, scale: jax.Array | float) -> jax.Array:
    """The two tasks on which CAGrad, Nash-MTL and FAMO are shown, the first scaled.

    Liu et al. 2021, "Conflict-Averse Gradient Descent" (arXiv:2110.14048), appendix;
    1 is its scale, and 0.1 that of Navon et al. 2022 (arXiv:2202.01017) and Liu et al.
    2023 (arXiv:2306.03792). Above 0 each task has a crease where its loss goes to minus
    infinity, cut off: gradients are huge there and change sign from step to step.
    """
    x, y = x_N
    crease_K = jnp.stack([0.5 * (-x - 7) - jnp.tanh(-y), 0.5 * (-x + 3) + 2])
    crease_K = crease_K + jnp.stack([0.0, jnp.tanh(-y)])
    above_K = jnp.log(jnp.maximum(jnp.abs(crease_K), 5e-6)) + 6
    below_K = ((-x + jnp.array([7, -7])) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    above, below = jnp.maximum(jnp.tanh(jnp.stack([0.5 * y, -0.5 * y])), 0)
    return jnp.stack([scale, 1.0]) * (above_K * above + below_K * below)


def positive_toy(x_N: jax.Array, scale: jax.Array | float) -> jax.Array:
    """The same gradients, and losses above 0: -21 is below every value of a task."""
    return toy(x_N, scale) + 21 * jnp.stack([scale, 1.0])


def toy_optimum(scale: float) -> float:
    """First coordinate of the minimum of the mean, where `y < 0`."""
    return -7 * (1 - scale) / (1 + scale)


# -------------------------------------------------------------------------- quadratics


class Quadratics(NamedTuple):
    """`f_k(x) = (x - u_k)^T A_k (x - u_k)`, float64."""

    matrix_KNN: np.ndarray
    center_KN: np.ndarray

    def __call__(self, x_N: jax.Array) -> jax.Array:
        away_KN = x_N - jnp.asarray(self.center_KN, jnp.float32)
        matrix_KNN = jnp.asarray(self.matrix_KNN, jnp.float32)
        return jnp.einsum("kn,knm,km->k", away_KN, matrix_KNN, away_KN)

    def exact(self, x_TN: np.ndarray) -> np.ndarray:
        """Losses `[..., K]` in float64."""
        away_TKN = np.float64(x_TN)[..., None, :] - self.center_KN
        return np.einsum("...kn,knm,...km->...k", away_TKN, self.matrix_KNN, away_TKN)

    def slopes(self, x_TN: np.ndarray) -> np.ndarray:
        """Gradients `[..., K, N]` in float64."""
        away_TKN = np.float64(x_TN)[..., None, :] - self.center_KN
        return 2 * np.einsum("...kn,knm->...km", away_TKN, self.matrix_KNN)

    def pareto_point(self, weights_K: np.ndarray) -> np.ndarray:
        """Where the gradients cancel with these weights: the minimum of that sum."""
        matrix_NN = np.einsum("k,knm->nm", weights_K, self.matrix_KNN)
        right_N = np.einsum(
            "k,knm,km->n", weights_K, self.matrix_KNN, np.float64(self.center_KN)
        )
        return np.linalg.solve(matrix_NN, right_N)


def isotropic(center_KN: np.ndarray) -> Quadratics:
    """`|x - u_k|^2 / 2`: the Pareto set is the convex hull of the centers."""
    num_abilities, num_coordinates = center_KN.shape
    half_NN = np.eye(num_coordinates) / 2
    return Quadratics(np.stack([half_NN] * num_abilities), center_KN)


def _turned(angle: float, first: float, second: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]]) @ np.diag([first, second])


# Two narrow valleys that cross at an angle, and a pair without conflict: the objectives
# "CQF" and "EWQ" of the experiments of TorchJD, with their starts.
_ROOT_KNN = np.stack(
    [_turned(np.pi / 16, 1, 0.1), _turned(-np.pi / 16, np.sqrt(3), 0.1)]
)
VALLEYS = Quadratics(
    _ROOT_KNN @ _ROOT_KNN.transpose(0, 2, 1), np.array([[1.0, 0.0], [-1.0, 0.0]])
)
VALLEY_STARTS = np.float32([(0.5, 0.5), (-1, 7), (0, 0), (1, 6)])
SEPARATE = Quadratics(
    np.array([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]]), np.zeros((2, 2))
)
SEPARATE_STARTS = np.float32([(3, -2), (0, -3), (-4, 4), (-3, 4), (-3.5, -0.75)])
