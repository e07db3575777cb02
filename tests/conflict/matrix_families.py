"""Stacks of K gradients of every awkward kind, as hypothesis strategies."""

import numpy as np
from hypothesis import strategies as st

FAMILIES = (
    "normal",
    "low_rank",
    "antiparallel",
    "duplicated",
    "scaled",
    "absent",
    "aligned",
    "stationary",
)


SIZES = (1, 2, 3, 4, 8, 16)  # each is one compilation


def make_rows(family: str, num_rows: int, seed: int) -> np.ndarray:
    """`[K, 12]` float64."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_rows, 12))
    if family == "low_rank":
        rank = rng.integers(1, 4)
        rows = rng.standard_normal((num_rows, rank)) @ rng.standard_normal((rank, 12))
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


def simplex(num_rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 1).dirichlet(np.ones(num_rows))


rows_and_weights = st.builds(
    lambda family, num_rows, seed: (
        make_rows(family, num_rows, seed),
        simplex(num_rows, seed).astype(np.float32),
    ),
    st.sampled_from(FAMILIES),
    st.sampled_from(SIZES),
    st.integers(0, 10_000),
)
