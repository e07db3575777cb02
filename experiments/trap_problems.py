"""The traps: problems on which a mixture rule must not do the obvious wrong thing.

All have three abilities, three parameters and 400 updates, so that a rule compiles once
for all of them. What there is to learn is 2 nats unless said otherwise.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from experiments.mixture_problems import Problem

NUM_UPDATES = 400
SHIFT = 200  # update at which the saturated ability becomes hard again
RANGE = 2.0  # nats


def separate(curvature_K, num_updates: int = NUM_UPDATES) -> Problem:
    """Abilities that do not touch: parameter k belongs to ability k alone."""
    curvature_K = np.asarray(curvature_K, np.float32)
    size = len(curvature_K)
    axes_KDD = np.stack([np.diag(row) for row in np.eye(size)])
    centre_K = np.sqrt(2 * RANGE / np.maximum(curvature_K, 1e-6))
    factor_KDD = axes_KDD * np.sqrt(curvature_K)[:, None, None]
    return _problem(factor_KDD, np.diag(centre_K), np.zeros(size), num_updates)


def noise() -> Problem:
    """Ability 2 is all entropy: its loss is the highest and never moves."""
    return replace(
        separate([0.3, 0.3, 0.0]),
        entropy_K=jnp.array([0.5, 0.5, 6.0]),
        reference_K=jnp.array([0.5, 0.5, 6.0]),
        **_eval_noise(0.02),
    )


def saturation() -> Problem:
    """Ability 0 is learnt early; half way through its data become hard again."""
    problem = separate([2.0, 0.1, 0.1])
    moved_UKD = problem.centre_UKD.at[SHIFT:, 0].set(0.0)
    return replace(problem, centre_UKD=moved_UKD)


def repetition() -> Problem:
    """Ability 2 is so small that its share of the prior is half an epoch per update.

    Then 1.5 of the epochs that are memorised are repetitions, which costs 0.9 nats;
    below a weight of 2 / 15 they cost none.
    """
    return replace(
        separate([0.3, 0.3, 0.3]),
        epochs_K=jnp.array([0.05, 0.05, 1.5]),
        overfit_K=jnp.array([0.4, 0.4, 0.4]),
        **_eval_noise(0.005),
    )


def equal(num_updates: int = NUM_UPDATES) -> Problem:
    """Nothing to tell the abilities apart but noise, and a prior that is not even."""
    problem = separate([0.3, 0.3, 0.3], num_updates)
    return replace(
        problem,
        start_D=jnp.diagonal(problem.centre_UKD[0]),  # all that can be learnt is
        entropy_K=jnp.full(3, 2.0),
        reference_K=jnp.full(3, 1.0),
        **_eval_noise(0.05, num_updates),
        prior_K=jnp.array([0.2, 0.3, 0.5]),
    )


def conflict() -> Problem:
    """Three abilities want the same two parameters to be elsewhere.

    No mixture serves all; under the prior ability 1 is left far behind.
    """
    curvature_K = np.array([0.9, 0.3, 0.6])
    factor_KDD = np.sqrt(curvature_K)[:, None, None] * np.diag([1.0, 1.0, 0.0])
    centre_KD = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.6, 1.4, 0.0]])
    start_D = np.array([-1.0, -1.5, 0.0])
    return _problem(factor_KDD, centre_KD, start_D, NUM_UPDATES)


def tour() -> Problem:
    """For the eye: one learnt early and hard again half way, one slow, one entropy."""
    problem = separate([2.0, 0.1, 0.0])
    moved_UKD = problem.centre_UKD.at[SHIFT:, 0].set(0.0)
    return replace(
        problem,
        centre_UKD=moved_UKD,
        entropy_K=jnp.array([0.5, 0.5, 4.0]),
        reference_K=jnp.array([0.5, 0.5, 4.0]),
        **_eval_noise(0.02),
    )


TRAPS = {
    "noise": noise,
    "saturation": saturation,
    "repetition": repetition,
    "equal": equal,
    "conflict": conflict,
}


def _problem(factor_KDD, centre_KD, start_D, num_updates: int) -> Problem:
    size, dimension = np.shape(centre_KD)
    shape = (num_updates, size, dimension)
    return Problem(
        factor_KDD=jnp.asarray(factor_KDD, jnp.float32),
        centre_UKD=jnp.broadcast_to(jnp.asarray(centre_KD, jnp.float32), shape),
        entropy_K=jnp.full(size, 0.5),
        start_D=jnp.asarray(start_D, jnp.float32),
        prior_K=jnp.full(size, 1 / size),
        learning_rate=jnp.float32(0.02),
        eval_noise_UK=jnp.zeros((num_updates, size)),
        eval_stderr_K=jnp.zeros(size),
        gradient_noise_UKD=jnp.zeros(shape),
        epochs_K=jnp.full(size, 0.05),
        overfit_K=jnp.zeros(size),
        reference_K=jnp.full(size, 0.5),
        static_loss_UK=jnp.full((num_updates, size), jnp.nan),
    )


def _eval_noise(stderr: float, num_updates: int = NUM_UPDATES, seed: int = 0):
    noise_UK = stderr * np.random.default_rng(seed).standard_normal((num_updates, 3))
    return {
        "eval_noise_UK": jnp.asarray(noise_UK, jnp.float32),
        "eval_stderr_K": jnp.full(3, stderr),
    }
