"""Rows that are evaluated, on the devices."""

from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from dcft_jax.data import ROW_FIELDS, Rows, eval_batches
from dcft_jax.sharding import Rules, place

# Of one batch: its arrays on the devices, example_SBM, scored_SBM.
EvalBatch = tuple[dict[str, jax.Array], np.ndarray, np.ndarray]


def place_rows(
    rows: Rows,
    slots: tuple[int, int],
    mesh: Mesh,
    rules: Rules,
    num_segments: int | None = None,
) -> Iterator[EvalBatch]:
    """Rows on the devices, a batch at a time.

    Args:
      slots: S and B, the shape of a batch.
      num_segments: that the arrays have room for, per row; None: what the rows need.
    """
    size = num_segments or rows.scored_NM.shape[1]

    def pad(x_NM: np.ndarray, fill: int) -> np.ndarray:
        missing = size - x_NM.shape[1]
        x_NM = np.pad(x_NM, ((0, 0), (0, missing)), constant_values=fill)
        return x_NM.reshape(*slots, size)

    for batch in eval_batches(rows, slots[0] * slots[1]):
        example_SBM = pad(batch["example_NM"], -1)
        scored_SBM = pad(batch["scored_NM"], 0)
        arrays = {name: batch[f"{name}_NL"].reshape(*slots, -1) for name in ROW_FIELDS}
        arrays["scored"] = scored_SBM
        yield place(arrays, mesh, rules), example_SBM, scored_SBM
