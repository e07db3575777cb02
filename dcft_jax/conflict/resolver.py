"""What a resolver is: a pair of pure functions over an explicit state, as in optax."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Observation:
    """What some resolvers want to know besides the Gramian; None: not measured.

    `loss_K` is float32, the mean loss of each ability in this step, nan where it is
    absent. `stderr_KK` is float32, the standard error of each inner product of the
    Gramian, nan where it is unknown.
    """

    loss_K: jax.Array | None = None
    stderr_KK: jax.Array | None = None


NOTHING = Observation()


class Resolver(NamedTuple):
    """`init(num_abilities) -> state` and
    `resolve(gram_KK, weights_K, state, observation) -> (coefficients_K, state)`.

    The update is `sum_k c_k g_k`. `gram_KK` is `<g_i, g_j>`, float32, any scale;
    `weights_K` is not negative; `coefficients_K` is float32. The state is a pytree of
    arrays that belongs into the checkpoint.
    """

    init: Callable[[int], Any]
    resolve: Callable[..., tuple[jax.Array, Any]]
