"""How often data are repeated, and weights that do not repeat them too often.

A component is a tier of an ability; its rows are read in epochs.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dcft_jax.mixture.simplex import cap

UNLIMITED = np.iinfo(np.int32).max
# Halvings of an interval; float32 has no more to give.
BISECTIONS = 40


def epochs(rows_C: jax.Array, rows_per_epoch_C: jax.Array) -> jax.Array:
    """How often each component was read, float32."""
    return jnp.asarray(rows_C, jnp.float32) / rows_per_epoch_C


def row_budgets(rows_per_epoch_C: np.ndarray, max_epochs_C: np.ndarray) -> np.ndarray:
    """Rows that each component may give in all, int32, on the host.

    Whole rows, at least one; `UNLIMITED` where `max_epochs` is 0.
    """
    allowed_C = np.floor(np.asarray(max_epochs_C, float) * rows_per_epoch_C)
    budget_C = np.clip(allowed_C, 1, UNLIMITED)
    return np.where(np.asarray(max_epochs_C) > 0, budget_C, UNLIMITED).astype(np.int32)


def max_weights(
    budget_C: jax.Array,
    rows_C: jax.Array,
    credit_C: jax.Array,
    steps_left: jax.Array,
    num_slots: int,
    rows_per_slot: int,
    margin: float | None = None,
    extra: jax.Array | float = 0.0,
) -> jax.Array:
    """The largest weight each component may have in every step that is left.

        (budget - rows) / B - credit - margin
        -------------------------------------    but at least 0,
                    steps_left * S

    What `allocate` still owes (`credit`) comes out of the budget too, and at the end it
    may owe as little as `-margin`. A component whose weights stay below this never
    exceeds its budget, however they move: both sides fall by the same `S w` a step.

    Args:
      budget_C: int32, from `row_budgets`.
      rows_C: int32, rows consumed.
      credit_C: of `allocate`, before the next step.
      steps_left: the next step included.
      num_slots: S.
      rows_per_slot: B.
      margin: slots; None: (C - 1) / 2, the bound of `allocate` for any weights. 1 is
        enough for weights that do not aim at it, and leaves less unused.
      extra: raises all budgets by this share of them.
    """
    margin = (len(budget_C) - 1) / 2 if margin is None else margin
    left_C = (budget_C - rows_C).astype(jnp.float32)  # exact in int32
    left_C += extra * budget_C.astype(jnp.float32)
    slots_C = left_C / rows_per_slot - credit_C - margin
    return jnp.maximum(slots_C, 0.0) / (jnp.maximum(steps_left, 1) * num_slots)


def cap_repetition(
    weights_C: jax.Array,
    budget_C: jax.Array,
    rows_C: jax.Array,
    credit_C: jax.Array,
    steps_left: jax.Array,
    num_slots: int,
    rows_per_slot: int,
    margin: float | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Weights that keep every component inside its budget until the end of the run.

    The projection of the weights below `max_weights` (see `simplex.cap`): what a capped
    component gives up goes to the others in proportion to their weights. Arguments as
    in `max_weights`; none of the caps is needed for a run that stays below them.

    If all budgets together are less than what is left to train on, all are raised by
    the same share of themselves, the smallest that is enough.

    Returns:
      weights_C: on the simplex. Unchanged if no cap is near.
      extra: float32, that share; 0 while the budgets hold.
    """

    def limits(extra):
        limit_C = max_weights(
            budget_C,
            rows_C,
            credit_C,
            steps_left,
            num_slots,
            rows_per_slot,
            margin,
            extra,
        )
        return jnp.minimum(limit_C, 1.0)

    limit_C = limits(0.0)
    extra, raised_C = _least_extra(limits)
    relaxed_C = raised_C / jnp.maximum(jnp.sum(raised_C), 1e-30)
    fits = jnp.sum(limit_C) >= 1.0
    weights_C = jnp.where(fits, cap(weights_C, limit_C), relaxed_C)
    return weights_C, jnp.where(fits, 0.0, extra)


def _least_extra(limits) -> tuple[jax.Array, jax.Array]:
    """The least share by which budgets must grow for the limits to sum to 1, and the
    limits then.

    They come out of the loop as numbers: budgets nearly cancel against rows, and the
    compiler may evaluate an expression twice, with other roundings each time.
    """

    def double(_, high):
        return jnp.where(jnp.sum(limits(high)) >= 1.0, high, 2.0 * high)

    def halve(_, interval):
        low, high, high_C = interval
        middle = (low + high) / 2
        middle_C = limits(middle)
        fits = jnp.sum(middle_C) >= 1.0
        return (
            jnp.where(fits, low, middle),
            jnp.where(fits, middle, high),
            jnp.where(fits, middle_C, high_C),
        )

    # A budget is at least one row, and no run has more than 2^100 of them.
    high = lax.fori_loop(0, 100, double, jnp.float32(1e-6))
    start = jnp.float32(0.0), high, limits(high)
    _, extra, limit_C = lax.fori_loop(0, BISECTIONS, halve, start)
    return extra, limit_C
