"""Resolvers run on Gramians, compiled once for each size, and compared as updates."""

import functools

import jax
import numpy as np

from dcft_jax.conflict import RESOLVERS, Observation

GOLDEN = np.array([[-4.0, 1, 1], [6, 1, 1]])
PADDED = (5, 20)
BALANCERS = ("famo", "coba", "uw", "dwa")


@functools.cache
def jitted(name, **options):
    return jax.jit(RESOLVERS[name](**options).resolve)


def gramian(rows):
    return (rows @ rows.T).astype(np.float32)


def observed(num_rows):
    """What every resolver finds enough: some losses."""
    return Observation(loss_K=1 + np.arange(num_rows, dtype=np.float32) / 4)


def coefficients(name, gram, weights, state=None, exact=False, **options):
    """The coefficients of the first step, unless a state is given.

    Few sizes are compiled: fewer abilities are padded with absent ones, which is the
    same (`test_absent_rows_are_the_same_as_no_rows`), unless it is to be `exact`.
    """
    size = len(weights)
    full = size if exact or state is not None else next(n for n in PADDED if n >= size)
    padded_KK, padded_K = np.zeros((full, full)), np.zeros(full)
    padded_KK[:size, :size], padded_K[:size] = gram, weights
    if state is None:
        state = RESOLVERS[name](**options).init(full)
    resolve, seen = jitted(name, **options), observed(full)
    c, _ = resolve(np.float32(padded_KK), np.float32(padded_K), state, seen)
    assert not np.any(c[size:])
    return np.asarray(c)[:size]


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
