"""Resolvers run on Gramians, compiled once for each size, and compared as updates."""

import functools

import jax
import numpy as np

from dcft_jax.conflict import RESOLVERS, Observation

GOLDEN = np.array([[-4.0, 1, 1], [6, 1, 1]])
BALANCERS = ("famo", "coba", "uw", "dwa")


@functools.cache
def jitted(name, **options):
    return jax.jit(RESOLVERS[name](**options).resolve)


def gramian(rows):
    return (rows @ rows.T).astype(np.float32)


def observed(num_rows):
    """What every resolver finds enough: some losses."""
    return Observation(loss_K=1 + np.arange(num_rows, dtype=np.float32) / 4)


def coefficients(name, gram, weights, state=None, **options):
    """The coefficients of the first step, unless a state is given."""
    if state is None:
        state = RESOLVERS[name](**options).init(len(weights))
    gram, weights = np.asarray(gram, np.float32), np.asarray(weights, np.float32)
    resolve = jitted(name, **options)
    return np.asarray(resolve(gram, weights, state, observed(len(weights)))[0])


def effort(rows, c):
    """The sum of the lengths that go into an update: what rounding is relative to."""
    return np.sum(np.abs(np.float64(c)) * np.linalg.norm(rows, axis=1))


def difference(rows, one, other):
    """How far two updates are apart, relative to what went into them."""
    length = np.linalg.norm((np.float64(one) - np.float64(other)) @ rows)
    return length / max(effort(rows, one), effort(rows, other), 1e-300)


def conflict(rows, c):
    """How much the update is against the worst-off row; 0 if against none."""
    norms = np.linalg.norm(rows, axis=1)
    units = rows[norms > 0] / norms[norms > 0, None]
    against = -(units @ (np.float64(c) @ rows))
    return np.max(against, initial=0.0) / max(effort(rows, c), 1e-300)
