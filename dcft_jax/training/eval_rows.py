"""Rows that are evaluated, on the devices."""

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dcft_jax.data import ROW_FIELDS, Rows, eval_batches
from dcft_jax.sharding import Rules, place

# One split of an ability: device batch, example_SBM, scored_SBM.
EvalSet = list[tuple[dict[str, jax.Array], np.ndarray, np.ndarray]]


def place_rows(
    rows: Rows, data: ConfigDict, mesh: Mesh, rules: Rules, num_segments: int
) -> EvalSet:
    """Rows on the devices, in batches of the training shape.

    Args:
      data: `config.data`.
      num_segments: that the arrays have room for, per row.
    """
    slots = (data.num_slots, data.rows_per_slot)

    def pad(x_NM: np.ndarray, fill: int) -> np.ndarray:
        missing = num_segments - x_NM.shape[1]
        x_NM = np.pad(x_NM, ((0, 0), (0, missing)), constant_values=fill)
        return x_NM.reshape(*slots, num_segments)

    sets = []
    for batch in eval_batches(rows, data.num_slots * data.rows_per_slot):
        example_SBM = pad(batch["example_NM"], -1)
        scored_SBM = pad(batch["scored_NM"], 0)
        arrays = {name: batch[f"{name}_NL"].reshape(*slots, -1) for name in ROW_FIELDS}
        arrays["scored"] = scored_SBM
        sets.append((place(arrays, mesh, rules), example_SBM, scored_SBM))
    return sets
