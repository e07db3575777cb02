"""What to log about a resolution. Everything follows from the Gramian."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from dcft_jax.conflict.gramian import cosine_gramian
from dcft_jax.conflict.noise import Noise
from dcft_jax.conflict.solver import solve_nnqp

SIGNIFICANT = 2.0  # standard errors


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Diagnostics:
    """float32; nan: not known in this step."""

    gram_KK: jax.Array  # of all parameters, nan where an ability is absent
    cosines_KK: jax.Array
    group_cosines_GKK: jax.Array  # the same per group of parameters
    signal_K: jax.Array  # see Noise: unbiased squared norms of the gradients
    noise_K: jax.Array  # see Noise: variance per response token
    min_cosine: jax.Array  # over pairs of present abilities; nan if there is none
    conflict_rate: jax.Array  # share of those pairs with a negative cosine
    significant_rate: jax.Array  # ... below 0 by two standard errors; of the measured
    pareto_gap: jax.Array  # length of the shortest average of the unit gradients
    coefficients_K: jax.Array  # what the resolver chose
    acted: jax.Array  # bool: some coefficient is not the mean's
    change: jax.Array  # ||update - mean|| / ||mean||


def diagnose(
    gram_GKK: jax.Array,
    weights_K: jax.Array,
    coefficients_GK: jax.Array,
    noise: Noise | None = None,
    cosines_GKK: jax.Array | None = None,
) -> Diagnostics:
    """Describes the conflict and what the coefficients did about it.

    Args:
      gram_GKK: one Gramian per group of parameters, or one `[K, K]`.
      weights_K: of the mean.
      coefficients_GK: per group, or `[K]`.
      noise: of the slots, over all parameters.
      cosines_GKK: to report per group, if not those of `gram_GKK`.
    """
    gram_GKK = gram_GKK[None] if gram_GKK.ndim == 2 else gram_GKK
    coefficients_GK = jnp.atleast_2d(coefficients_GK)
    gram_KK = jnp.sum(gram_GKK, axis=0)
    num_abilities = len(weights_K)
    if noise is None:
        unknown_K = jnp.full(num_abilities, jnp.nan, jnp.float32)
        unknown_KK = jnp.full((num_abilities, num_abilities), jnp.nan, jnp.float32)
        noise = Noise(unknown_K, unknown_K, unknown_KK)
    cosines_KK, _, present_K = cosine_gramian(gram_KK)
    both_KK = present_K[:, None] & present_K
    pair_KK = both_KK & ~jnp.eye(num_abilities, dtype=bool)
    lowest = jnp.min(jnp.where(pair_KK, cosines_KK, 1.0), initial=1.0)
    tested_KK = pair_KK & jnp.isfinite(noise.stderr_KK)
    against_KK = gram_KK < -SIGNIFICANT * noise.stderr_KK
    mean_K = jnp.where(present_K, weights_K, 0.0)
    difference_GK = jnp.where(present_K, coefficients_GK - mean_K, 0.0)
    return Diagnostics(
        gram_KK=jnp.where(both_KK, gram_KK, jnp.nan),
        cosines_KK=jnp.where(both_KK, cosines_KK, jnp.nan),
        group_cosines_GKK=group_cosines(gram_GKK)
        if cosines_GKK is None
        else cosines_GKK,
        signal_K=noise.signal_K,
        noise_K=noise.noise_K,
        min_cosine=jnp.where(jnp.any(pair_KK), lowest, jnp.nan),
        conflict_rate=_share(pair_KK & (cosines_KK < 0), pair_KK),
        significant_rate=_share(tested_KK & against_KK, tested_KK),
        pareto_gap=pareto_gap(gram_KK),
        coefficients_K=_average(coefficients_GK, gram_GKK),
        acted=jnp.any(difference_GK != 0),
        change=_change(gram_GKK, mean_K, difference_GK, present_K),
    )


def pareto_gap(gram_KK: jax.Array) -> jax.Array:
    """Length of the shortest convex combination of the unit gradients, in [0, 1].

    0: the gradients of the present abilities cancel, no step improves all of them
    (Pareto stationarity, which does not depend on the lengths); 1: they are parallel.
    nan without abilities. Désidéri 2012 (MGDA), for normalised gradients.
    """
    cosines_KK, _, present_K = cosine_gramian(gram_KK)
    ridged_KK = cosines_KK + 1e-6 * jnp.eye(len(gram_KK), dtype=jnp.float32)
    # With x = argmin_{x >= 0} x^T C x / 2 - 1^T x the shortest has length 1 / |x|_1.
    x_K = solve_nnqp(ridged_KK, -present_K.astype(jnp.float32))
    total = jnp.sum(jnp.where(present_K, x_K, 0.0))
    return jnp.where(total > 0, lax.rsqrt(total), jnp.nan)


@jax.vmap
def group_cosines(gram_KK: jax.Array) -> jax.Array:
    """Cosines `[G, K, K]` of the Gramians `[G, K, K]`, nan where one is absent."""
    cosines_KK, _, present_K = cosine_gramian(gram_KK)
    return jnp.where(present_K[:, None] & present_K, cosines_KK, jnp.nan)


def _share(part_KK: jax.Array, whole_KK: jax.Array) -> jax.Array:
    total = jnp.sum(whole_KK)
    return jnp.where(total > 0, jnp.sum(part_KK) / total, jnp.nan)


def _average(coefficients_GK: jax.Array, gram_GKK: jax.Array) -> jax.Array:
    """Coefficients over the groups, each counting as its share of the squared norm."""
    if len(coefficients_GK) == 1:
        return coefficients_GK[0]
    square_GK = jnp.nan_to_num(jnp.diagonal(gram_GKK, axis1=1, axis2=2))
    total_K = jnp.sum(square_GK, axis=0)
    share_GK = square_GK / jnp.where(total_K > 0, total_K, 1.0)
    return jnp.sum(share_GK * coefficients_GK, axis=0)


def _change(gram_GKK, mean_K, difference_GK, present_K) -> jax.Array:
    diagonal_K = jnp.diagonal(jnp.sum(gram_GKK, axis=0))
    largest = jnp.max(jnp.where(present_K, diagonal_K, 0.0), initial=0.0)
    both_KK = present_K[:, None] & present_K
    # In units of the largest, so that no square leaves the float32 range.
    unit_GKK = jnp.where(both_KK, gram_GKK, 0.0) / jnp.where(largest > 0, largest, 1.0)
    mean_norm = _norm(unit_GKK, jnp.broadcast_to(mean_K, difference_GK.shape))
    change = _norm(unit_GKK, difference_GK) / jnp.where(mean_norm > 0, mean_norm, 1.0)
    return jnp.where(mean_norm > 0, change, 0.0)


def _norm(gram_GKK: jax.Array, combination_GK: jax.Array) -> jax.Array:
    """Length of the update that the combinations of all groups make."""
    equation = "gi,gij,gj->"
    square = jnp.einsum(
        equation,
        combination_GK,
        gram_GKK,
        combination_GK,
        precision=lax.Precision.HIGHEST,
    )
    return jnp.sqrt(jnp.maximum(square, 0.0))
