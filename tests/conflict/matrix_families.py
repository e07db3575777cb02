"""Stacks of K gradients of every awkward kind, as hypothesis strategies."""

import numpy as np
from hypothesis import strategies as st

# No combination of them cancels, far beyond float32.
INDEPENDENT = ("normal", "scaled", "aligned")
# Some do; a Gramian of the others is singular or nearly so.
FAMILIES = (
    *INDEPENDENT,
    "low_rank",
    "antiparallel",
    "duplicated",
    "absent",
    "stationary",
)
# TorchJD's: v^T J = 0 for some v > 0; for some v >= 0 only; for none. K > rank.
STATIONARITY = ("strong", "strictly_weak", "non_weak")
SHAPES = ((10, 1), (10, 5), (10, 9), (100, 1), (100, 19))  # length and rank, K = 20

SIZES = (1, 2, 3, 5, 8, 16, 20)


def make_rows(family: str, num_rows: int, seed: int) -> np.ndarray:
    """`[K, 24]` float64."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_rows, 24))
    if family == "low_rank":
        rank = rng.integers(1, 4)
        rows = rng.standard_normal((num_rows, rank)) @ rng.standard_normal((rank, 24))
    elif family == "antiparallel":
        signs = rng.choice([-1.0, 1.0], num_rows)[:, None]
        rows = signs * rows[0] + 1e-3 * rows
    elif family == "duplicated":
        rows = rows[rng.integers(0, max(1, num_rows // 2), num_rows)]
    elif family == "scaled":
        rows = rows * 10.0 ** rng.uniform(-3, 3, num_rows)[:, None]
    elif family == "absent":
        rows = rows * (rng.random(num_rows) < 0.6)[:, None]
    elif family == "aligned":
        rows = np.abs(rows)
    elif family == "stationary":
        rows[-1] = -rows[:-1].sum(axis=0)
    return rows


def make_stationary_rows(
    kind: str, num_rows: int, length: int, rank: int, seed: int
) -> np.ndarray:
    """`[K, length]` float64 of rank `rank`, at most one more than it."""
    rng = np.random.default_rng(seed)
    if kind == "strong":
        return _balanced(rng, num_rows, length, rank)
    basis = np.linalg.qr(rng.standard_normal((length, rank)))[0].T
    common, rest = basis[0], basis[1:]
    within = rng.standard_normal((num_rows, rank - 1)) @ rest
    forward = np.abs(rng.standard_normal((num_rows, 1)))
    if kind == "strictly_weak" and rank > 1:
        # The first half balances itself, in the plane that only the others leave.
        half = num_rows // 2
        within[:half] = _balanced(rng, half, rank - 1, min(rank - 1, half - 1)) @ rest
        forward[:half] = 0
    return within + forward * common


def _balanced(rng, num_rows, length, rank):
    """`v^T J = 0` for a `v > 0`."""
    v = np.abs(rng.standard_normal(num_rows)) + 0.1
    left = rng.standard_normal((num_rows, rank))
    left -= np.outer(v, v @ left) / (v @ v)
    return left @ rng.standard_normal((rank, length))


def simplex(num_rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 1).dirichlet(np.ones(num_rows))


def cases(families=FAMILIES, sizes=SIZES):
    """Rows and float32 weights."""
    return st.builds(
        lambda family, num_rows, seed: (
            make_rows(family, num_rows, seed),
            simplex(num_rows, seed).astype(np.float32),
        ),
        st.sampled_from(families),
        st.sampled_from(sizes),
        st.integers(0, 10_000),
    )


def stationary_cases(kinds=STATIONARITY):
    """Twenty rows of TorchJD's kinds, and even float32 weights."""
    return st.builds(
        lambda kind, shape, seed: (
            make_stationary_rows(kind, 20, *shape, seed),
            np.full(20, 1 / 20, np.float32),
        ),
        st.sampled_from(kinds),
        st.sampled_from(SHAPES),
        st.integers(0, 10_000),
    )
