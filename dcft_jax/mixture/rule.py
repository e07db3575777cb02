"""What a rule is: pure functions over an explicit state, as in optax."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from dcft_jax.mixture.feedback import Feedback

# What a rule may need beyond the losses of an evaluation. The loop measures what the
# rule declares, before each update, and charges the time to the run.
REFERENCE_LOSS = "reference_loss"  # reference_loss_K known for every ability
REFERENCE_MODEL = "reference_model"  # excess_loss_K; a forward pass of another model
GRAMIAN = "gramian"  # gram_KK; free, conflict resolution computes it
NOISE = "noise"  # grad_noise_K; free where an ability has two slots in a step
TRANSFER = "transfer"  # transfer_KK; a forward and backward pass over mix-val rows
VIRTUAL_STEP = "virtual_step"  # virtual_*_K; K steps that are not kept
NEEDS = (REFERENCE_LOSS, REFERENCE_MODEL, GRAMIAN, NOISE, TRANSFER, VIRTUAL_STEP)


class MixtureRule(NamedTuple):
    """`init(prior_K) -> state`; `update(feedback, state) -> state`;
    `weights(state) -> weights_K`, on the simplex. All can be jitted.

    `needs`: some of `NEEDS`. `interval(state)`: int32, optimizer steps until the next
    update; None: the loop decides. `rollback(state)`: int32, after an update, the step
    of an earlier update whose parameters and optimizer state training goes on from, -1
    to go on from here; None: never. `reach`: how many updates it may go back.
    """

    init: Callable[[jax.Array], Any]
    update: Callable[[Feedback, Any], Any]
    weights: Callable[[Any], jax.Array]
    needs: frozenset[str] = frozenset()
    interval: Callable[[Any], jax.Array] | None = None
    rollback: Callable[[Any], jax.Array] | None = None
    reach: int = 0
