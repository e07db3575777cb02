"""How mixture weights act: through what is sampled, what is optimised, or both.

Two quantities: the share of the slots an ability is sampled with, and its weight in
the objective. The gradient of an ability is a mean over its own tokens, so neither
implies the other: more slots make it less noisy, more weight makes it count more.
"""

import jax
import jax.numpy as jnp

ACTUATORS = ("sample", "reweight", "both")


def sampling_shares(
    actuator: str, weights_K: jax.Array, prior_K: jax.Array
) -> jax.Array:
    """Shares of the slots: the weights, or with "reweight" the prior for ever."""
    return prior_K if actuator == "reweight" else weights_K


def objective_weights(
    actuator: str, weights_K: jax.Array, shares_K: jax.Array, ability_S: jax.Array
) -> jax.Array:
    """Weights of the abilities' gradients in a step with these slots, float32 `[K]`.

    "sample": every slot counts the same, so an ability counts as its slots do in this
    step; that is plain training on the sampled batch, whose objective is `w` on
    average. "reweight" and "both": `w_k / min(1, S q_k)`. With `S q_k < 1` an ability
    is present in a share `S q_k` of the steps only, and dividing by that restores `w_k`
    on average (Horvitz and Thompson 1952); it is NeMo's `w / q` per token (Automodel
    PR 3303) for gradients that are means already. 0 for a weight of 0.

    Args:
      actuator: one of `ACTUATORS`.
      weights_K: w, on the simplex.
      shares_K: q, on the simplex.
      ability_S: int32, which ability each slot holds.
    """
    num_slots = ability_S.shape[0]
    if actuator == "sample":
        counts_K = jnp.bincount(ability_S, length=len(weights_K))
        return counts_K.astype(jnp.float32) / num_slots
    present_K = jnp.minimum(1.0, num_slots * jnp.asarray(shares_K, jnp.float32))
    raised_K = weights_K / jnp.where(present_K > 0, present_K, 1.0)
    return jnp.where(weights_K > 0, raised_K, 0.0).astype(jnp.float32)
