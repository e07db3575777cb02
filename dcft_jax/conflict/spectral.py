"""Resolvers from the spectrum of the Gramian: equal angles, equal lengths."""

import jax
import jax.numpy as jnp

from dcft_jax.conflict.algebra import divide, masked, matmul, require
from dcft_jax.conflict.gramian import cosine_gramian
from dcft_jax.conflict.resolver import NOTHING, Resolver

# Share of the largest eigenvalue, per ability, below which float32 sees only rounding.
RANK_TOLERANCE = 1e-6
# Share of the weights, as a vector, that must lie in the range of the cosines.
REACHABLE = 1e-4
SCALES = ("min", "median", "rmse")


def imtl_g(least: float = 1e-3) -> Resolver:
    """The update whose projection on every gradient is the same, per weight.

    `<g_k, d> / |g_k|` in proportion to `w_k`: `c` in proportion to `D^-1 C^+ w`, where
    C holds the cosines and D the norms, with the sum of the weights as its sum (Liu et
    al. 2021, "Towards Impartial Multi-task Learning", ICLR, by a
    pseudo-inverse instead of a division that dependent gradients make singular).
    Coefficients can be negative.

    The sum of `D^-1 C^+ w` can be 0 or negative, where the formula has no meaning or
    turns the update around. Below the share `least` of the sum of its absolute values,
    and where no direction has those projections, the coefficients are the weights.

    Raises:
      ValueError: unless `least` is in (0, 1).
    """
    require(0 < least < 1, "imtl_g", "least", least, "a number in (0, 1)")

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        cosines_KK, norms_K, present_K = cosine_gramian(gram_KK)
        weights_K = masked(weights_K, present_K)
        y_K, reachable = _equal_projections(cosines_KK, weights_K, present_K)
        shares_K = masked(y_K / norms_K, present_K)
        shares_K = divide(shares_K, jnp.max(jnp.abs(shares_K), initial=0.0))
        total = jnp.sum(shares_K)
        sound = reachable & (total > least * jnp.sum(jnp.abs(shares_K)))
        coefficients_K = shares_K * divide(jnp.sum(weights_K), total)
        return jnp.where(sound, coefficients_K, weights_K), state

    return Resolver(lambda num_abilities: (), resolve)


def con_fig() -> Resolver:
    """The direction at equal angles to all gradients, as long as what they agree on.

    `d = (sum_k w_k <g_k, u>) u`, u the unit vector of `sum_k (C^+ w)_k g_k / |g_k|`:
    the cosine of d with gradient k is in proportion to `w_k` (Liu, Chu and Thuerey
    2024, "ConFIG", arXiv:2408.11104, in the mean form). The
    direction does not depend on the norms. Independent gradients are all served;
    coefficients can be negative. Where no direction has those angles, they are 0.
    """

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        cosines_KK, norms_K, present_K = cosine_gramian(gram_KK)
        weights_K = masked(weights_K, present_K)
        y_K, reachable = _equal_projections(cosines_KK, weights_K, present_K)
        y_K = divide(y_K, jnp.max(jnp.abs(y_K), initial=0.0))
        angles_K = matmul(cosines_KK, y_K)
        square = jnp.sum(y_K * angles_K)
        size = jnp.sum(weights_K * norms_K * angles_K)
        coefficients_K = y_K * divide(size, square) / norms_K
        sound = reachable & (square > 0)
        return masked(jnp.where(sound, coefficients_K, 0.0), present_K), state

    return Resolver(lambda num_abilities: (), resolve)


def aligned_mtl(scale: str = "min") -> Resolver:
    """The weighted mean of the gradients after making them orthogonal and equally long.

    `c = B w`, `B = sqrt(s) V L^-1/2 V^T` for `G = V L V^T`, over the eigenvalues that
    are not 0; s is their minimum, median, or mean (Senushkin et al. 2023, "Independent
    Component Alignment", arXiv:2305.19000, algorithm 1), named as "min", "median" and
    "rmse". Every change of the weights then moves the update by the same length.

    Eigenvalues below 1e-6 K of the largest count as 0, because float32 does not resolve
    them: an ability whose gradient is some hundred times smaller than the largest has
    no say. Coefficients can be negative.

    Raises:
      ValueError: if `scale` is none of these.
    """
    require(scale in SCALES, "aligned_mtl", "scale", scale, f"one of {SCALES}")

    def resolve(gram_KK, weights_K, state, observation=NOTHING):
        cosines_KK, norms_K, present_K = cosine_gramian(gram_KK)
        weights_K = masked(weights_K, present_K)
        sizes_K = masked(norms_K, present_K)
        matrix_KK = sizes_K[:, None] * cosines_KK * sizes_K
        values_K, vectors_KK, kept_K = _spectrum(matrix_KK, present_K)
        ratio_K = divide(_typical(values_K, kept_K, scale), values_K)
        roots_K = jnp.where(kept_K, jnp.sqrt(jnp.maximum(ratio_K, 0.0)), 0.0)
        along_K = matmul(weights_K, vectors_KK)
        return masked(matmul(vectors_KK, roots_K * along_K), present_K), state

    return Resolver(lambda num_abilities: (), resolve)


def _equal_projections(cosines_KK, weights_K, present_K) -> tuple[jax.Array, jax.Array]:
    """`C^+ w`, and whether any direction has projections like `w`."""
    values_K, vectors_KK, kept_K = _spectrum(cosines_KK, present_K)
    along_K = jnp.where(kept_K, matmul(weights_K, vectors_KK), 0.0)
    reachable = jnp.sum(along_K**2) > REACHABLE**2 * jnp.sum(weights_K**2)
    return matmul(vectors_KK, divide(along_K, jnp.where(kept_K, values_K, 1.0))), (
        reachable
    )


def _spectrum(matrix_KK, present_K) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Eigenvalues in ascending order, eigenvectors, and which are not just rounding."""
    # By size: rounding is smaller in a graded matrix, and no order of rows can show.
    order_K = jnp.argsort(jnp.diagonal(matrix_KK))
    values_K, sorted_KK = jnp.linalg.eigh(matrix_KK[order_K][:, order_K])
    vectors_KK = jnp.zeros_like(sorted_KK).at[order_K].set(sorted_KK)
    least = jnp.max(values_K, initial=0.0) * jnp.sum(present_K) * RANK_TOLERANCE
    return values_K, vectors_KK, values_K > least


def _typical(values_K, kept_K, scale):
    if scale == "rmse":
        return divide(jnp.sum(jnp.where(kept_K, values_K, 0.0)), jnp.sum(kept_K))
    # Ascending, so those kept come last.
    skipped = jnp.sum(~kept_K)
    rank = jnp.sum(kept_K)
    place = skipped if scale == "min" else skipped + (rank - 1) // 2
    return values_K[jnp.clip(place, 0, len(values_K) - 1)]
