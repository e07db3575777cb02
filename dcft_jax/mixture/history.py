"""A record of losses over a run, of fixed size, as a pytree."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class History:
    """At most T entries of K abilities; nan where an ability was not measured.

    Entries lie `stride` records apart, from the first record on. When all are used,
    every second one goes and the stride doubles, so the history always spans the whole
    run, evenly. The newest record is always there, on the way to the next entry.
    """

    position_TK: jax.Array  # float32: steps, rows or tokens so far
    loss_TK: jax.Array
    stderr_TK: jax.Array
    num_entries: jax.Array  # int32
    stride: jax.Array  # int32
    age: jax.Array  # int32, records since the last entry that is kept for good


def empty_history(num_abilities: int, capacity: int = 64) -> History:
    """A history without entries.

    Raises:
      ValueError: unless `capacity` is even and at least 4.
    """
    if capacity < 4 or capacity % 2:
        raise ValueError(f"capacity is {capacity}, expected even and at least 4.")

    def blank_TK():  # one buffer each: a donated state must not hold one twice
        return jnp.full((capacity, num_abilities), jnp.nan, jnp.float32)

    return History(
        position_TK=blank_TK(),
        loss_TK=blank_TK(),
        stderr_TK=blank_TK(),
        num_entries=jnp.zeros((), jnp.int32),
        stride=jnp.ones((), jnp.int32),
        age=jnp.zeros((), jnp.int32),
    )


def record(
    history: History, position_K: jax.Array, loss_K: jax.Array, stderr_K: jax.Array
) -> History:
    """The history with one more record; a record without any finite loss is none.

    Args:
      history: is not changed.
      position_K: when; finite wherever the loss is to count.
      loss_K: nan where not measured.
      stderr_K: nan where unknown.
    """
    position_K, loss_K = jnp.broadcast_arrays(position_K, loss_K)
    known_K = jnp.isfinite(loss_K) & jnp.isfinite(position_K)
    # A record that is not an entry for good gives way to the one after it.
    index = history.num_entries - (history.age > 0)
    age = history.age + 1
    written = History(
        position_TK=_write(history.position_TK, index, position_K, known_K),
        loss_TK=_write(history.loss_TK, index, loss_K, known_K),
        stderr_TK=_write(history.stderr_TK, index, stderr_K, known_K),
        num_entries=index + 1,
        stride=history.stride,
        age=jnp.where(age == history.stride, 0, age),
    )
    written = _choose(index + 1 == len(written.loss_TK), _thinned(written), written)
    return _choose(jnp.any(known_K), written, history)


def known_entries(history: History) -> jax.Array:
    """Bool `[T, K]`."""
    return jnp.isfinite(history.loss_TK) & jnp.isfinite(history.position_TK)


def _write(array_TK, index, value_K, known_K):
    # What an ability last measured stays until it is measured again.
    value_K = jnp.where(known_K, value_K, array_TK[index])
    return array_TK.at[index].set(value_K.astype(jnp.float32))


def _thinned(history: History) -> History:
    """Every second entry, and the newest on the way to the next; of a full one."""
    capacity = len(history.loss_TK)
    half = capacity // 2
    position_T = jnp.arange(capacity)
    source_T = jnp.where(position_T < half, 2 * position_T, capacity - 1)

    def thin(array_TK):
        source_TK = array_TK[jnp.minimum(source_T, capacity - 1)]
        return jnp.where(position_T[:, None] <= half, source_TK, jnp.nan)

    return History(
        position_TK=thin(history.position_TK),
        loss_TK=thin(history.loss_TK),
        stderr_TK=thin(history.stderr_TK),
        num_entries=jnp.asarray(half + 1, jnp.int32),
        stride=2 * history.stride,
        age=jnp.where(history.age == 0, history.stride, history.age),
    )


def _choose(condition, this: History, that: History) -> History:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), this, that)
