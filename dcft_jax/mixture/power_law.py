"""Power laws `L(n) = eps + beta n^(-alpha)` fitted to the losses of a run."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from dcft_jax.mixture.history import History, known_entries

MIN_ENTRIES = 8  # three parameters and a variance
# The best power law must leave a tenth of the variance that a constant leaves, and the
# standard error of eps must be below half of the fitted drop from the first entry.
MAX_UNEXPLAINED = 0.1
MAX_RELATIVE_ERROR = 0.5
EXPONENTS = (0.02, 2.0)
GRID = 64
# Losses and their differences are float32.
ROUNDING = 1e-7


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PowerLaw:
    """`L(n) = eps + drop (n / unit)^(-alpha)`, float32, for each of K abilities.

    `beta = drop unit^alpha`; the unit keeps float32 in range. nan where there is none.
    """

    irreducible_K: jax.Array  # eps
    drop_K: jax.Array  # L(unit) - eps
    exponent_K: jax.Array  # alpha
    unit_K: jax.Array  # a position: the first of the history
    noise_K: jax.Array  # standard deviation of an entry around the law
    irreducible_stderr_K: jax.Array
    # R with covariance R R^T of (L(unit), drop, alpha).
    root_K33: jax.Array

    @property
    def coefficient_K(self) -> jax.Array:
        """beta."""
        return self.drop_K * self.unit_K**self.exponent_K


@jax.jit  # so that a call outside of jit compiles once
def fit_power_law(history: History) -> PowerLaw:
    """Least squares in nats, with standard errors, where the data identify the law.

    Variable projection (Golub and Pereyra 1973): for a given alpha, eps and beta >= 0
    solve a linear problem; alpha comes from a grid on (0.02, 2) and Gauss-Newton steps
    from its best point. Entries weigh `1 / stderr^2` if all of an ability's standard
    errors are known and positive, else the same. The covariance is `s^2 (J^T W J)^-1`
    with s^2 the mean squared residual (n - 3 degrees of freedom): it takes residuals
    for independent, so it does not hold the error that all entries share because they
    are measured on the same rows.

    All is nan for an ability with fewer than 8 entries at positions > 0; whose losses
    do not fall, fall no better than noise, or fall so straight in log n that no eps is
    seen (the best eps is below 0, or alpha at the end of its range); and where eps is
    less certain than half of the drop.
    """
    return jax.vmap(_fit_identified)(*_columns(history))


@partial(jax.jit, static_argnames=("huber_delta", "exponents", "num_iterations"))
def fit_power_law_robustly(
    history: History,
    huber_delta: float = 1e-3,
    exponents: tuple[float, float] = (0.001, 0.8),
    num_iterations: int = 30,
) -> PowerLaw:
    """Huber loss of `log L(n) - log L`, as ADO fits (arXiv:2410.11820, section 3.1).

    Iteratively reweighted variable projection from the least-squares solution: weights
    `min(1, delta / |r|)`, log L(n) linearised at the last solution. Without standard
    errors: with delta far below the noise the loss is absolute deviation, and the
    density of residuals at 0 that its errors need is not in so few entries. nan only
    for an ability with fewer than 3 entries at positions > 0.
    """
    fit = partial(_fit_robustly, huber_delta, exponents, num_iterations)
    return jax.vmap(fit)(*_columns(history))


def predict(law: PowerLaw, position_K: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The law's loss at positions > 0, and the standard error of that value.

    The scatter of single measurements, `law.noise_K`, is not in it.
    """
    log_K = jnp.log(position_K / law.unit_K)
    decay_K = jnp.expm1(-law.exponent_K * log_K)
    loss_K = law.irreducible_K + law.drop_K * (decay_K + 1.0)
    slope_K = -law.drop_K * (decay_K + 1.0) * log_K
    gradient_K3 = jnp.stack([jnp.ones_like(log_K), decay_K, slope_K], axis=-1)
    return loss_K, _stderr(law.root_K33, gradient_K3)


# ------------------------------------------------------- one ability, from here on


def _columns(history: History):
    """`[K, T]`: log positions from the first, losses, weights; and the units."""
    position_TK = jnp.nan_to_num(history.position_TK)
    known_TK = known_entries(history) & (position_TK > 0)
    unit_K = jnp.min(jnp.where(known_TK, position_TK, jnp.inf), axis=0)
    log_TK = jnp.where(known_TK, jnp.log(position_TK / unit_K), 0.0)
    loss_TK = jnp.where(known_TK, history.loss_TK, 0.0)
    weight_TK = jnp.where(known_TK, history.stderr_TK**-2.0, 0.0)
    usable_K = jnp.all(jnp.isfinite(weight_TK) & (~known_TK | (weight_TK > 0)), axis=0)
    weight_TK = jnp.where(usable_K, weight_TK, known_TK.astype(jnp.float32))
    count_K = jnp.sum(known_TK, axis=0)
    total_K = jnp.where(count_K > 0, jnp.sum(weight_TK, axis=0), 1.0)
    weight_TK = weight_TK * count_K / total_K
    return log_TK.T, loss_TK.T, weight_TK.T, unit_K


def _linear(log_T, loss_T, weight_T, lowest, alpha):
    """(L(unit), drop, sum of squares) for a given alpha; drop >= 0, eps >= lowest.

    `lowest` is 0 or -inf.
    """
    # x^-alpha - 1 without cancellation: exact for a small alpha, too.
    decay_T = jnp.expm1(-alpha * log_T)
    total = jnp.maximum(jnp.sum(weight_T), 1e-30)
    decay_mean = jnp.sum(weight_T * decay_T) / total
    loss_mean = jnp.sum(weight_T * loss_T) / total
    centred_T = decay_T - decay_mean
    square = jnp.sum(weight_T * centred_T**2)
    product = jnp.sum(weight_T * centred_T * (loss_T - loss_mean))
    drop = jnp.maximum(product / jnp.where(square > 0, square, 1.0), 0.0)
    start = loss_mean - drop * decay_mean
    # If eps = start - drop < 0, eps = 0 is best: the line through the origin.
    power_T = decay_T + 1.0
    free = jnp.sum(weight_T * power_T * loss_T) / jnp.maximum(
        jnp.sum(weight_T * power_T**2), 1e-30
    )
    held = start - drop < lowest
    start, drop = jnp.where(held, free, start), jnp.where(held, free, drop)
    residual_T = loss_T - start - drop * decay_T
    return start, drop, jnp.sum(weight_T * residual_T**2)


def _jacobian(log_T, drop, alpha):
    decay_T = jnp.expm1(-alpha * log_T)
    slope_T = -drop * (decay_T + 1.0) * log_T
    return jnp.stack([jnp.ones_like(log_T), decay_T, slope_T], axis=1)


def _residual_slope(log_T, weight_T, drop, alpha):
    """d L / d alpha less what L(unit) and drop can do of it."""
    _, decay_T, slope_T = _jacobian(log_T, drop, alpha).T
    total = jnp.maximum(jnp.sum(weight_T), 1e-30)
    decay_T = decay_T - jnp.sum(weight_T * decay_T) / total
    slope_T = slope_T - jnp.sum(weight_T * slope_T) / total
    square = jnp.sum(weight_T * decay_T**2)
    shared = jnp.sum(weight_T * decay_T * slope_T) / jnp.where(square > 0, square, 1.0)
    return slope_T - shared * decay_T


def _project(log_T, loss_T, weight_T, exponents, lowest):
    """(L(unit), drop, alpha, sum of squares) of the best law."""
    solve = partial(_linear, log_T, loss_T, weight_T, lowest)
    low, high = exponents
    grid_G = jnp.exp(jnp.linspace(jnp.log(low), jnp.log(high), GRID))
    alpha = grid_G[jnp.argmin(jax.vmap(solve)(grid_G)[2])]

    def improve(_, alpha):
        start, drop, _ = solve(alpha)
        residual_T = loss_T - start - drop * jnp.expm1(-alpha * log_T)
        column_T = _residual_slope(log_T, weight_T, drop, alpha)
        step = jnp.sum(weight_T * column_T * residual_T)
        step = step / jnp.sum(weight_T * column_T**2)
        step = jnp.where(jnp.isfinite(step), step, 0.0)
        tried_C = jnp.clip(alpha + step * jnp.array([0.0, 1.0, 0.5, 0.1]), low, high)
        return tried_C[jnp.argmin(jax.vmap(solve)(tried_C)[2])]

    alpha = lax.fori_loop(0, 4, improve, alpha)
    start, drop, squares = solve(alpha)
    return start, drop, alpha, squares


def _fit_identified(log_T, loss_T, weight_T, unit) -> PowerLaw:
    start, drop, alpha, squares = _project(
        log_T, loss_T, weight_T, EXPONENTS, lowest=-jnp.inf
    )
    count = jnp.sum(weight_T > 0)
    mean = jnp.sum(weight_T * loss_T) / jnp.maximum(count, 1)
    flat = jnp.sum(weight_T * (loss_T - mean) ** 2)
    variance = squares / jnp.maximum(count - 3, 1) + (ROUNDING * mean) ** 2
    jacobian_T3 = _jacobian(log_T, drop, alpha)
    upper_33 = jnp.linalg.qr(jnp.sqrt(weight_T)[:, None] * jacobian_T3, mode="r")
    # (R^T R)^-1 = R^-1 R^-T: inverting R itself keeps the digits that R^T R would lose.
    root_33 = jnp.sqrt(variance) * jax.scipy.linalg.solve_triangular(
        upper_33, jnp.eye(3)
    )
    stderr = _stderr(root_33, jnp.array([1.0, -1.0, 0.0]))
    fitted = drop * -jnp.expm1(-alpha * jnp.max(log_T))
    identified = (
        (count >= MIN_ENTRIES)
        & (squares < MAX_UNEXPLAINED * flat)
        & (start > drop)
        & (alpha > 1.01 * EXPONENTS[0])
        & (alpha < 0.99 * EXPONENTS[1])
        & (stderr < MAX_RELATIVE_ERROR * fitted)
    )
    noise = jnp.sqrt(variance)
    law = PowerLaw(start - drop, drop, alpha, unit, noise, stderr, root_33)
    return jax.tree.map(lambda leaf: jnp.where(identified, leaf, jnp.nan), law)


def _fit_robustly(delta, exponents, num_iterations, log_T, loss_T, weight_T, unit):
    known_T = weight_T > 0
    log_loss_T = jnp.log(jnp.where(known_T & (loss_T > 0), loss_T, 1.0))
    weight_T = jnp.where(loss_T > 0, weight_T, 0.0)

    def reweight(_, params):
        start, drop, alpha = params
        law_T = jnp.maximum(start + drop * jnp.expm1(-alpha * log_T), 1e-6)
        residual_T = jnp.log(law_T) - log_loss_T
        huber_T = delta / jnp.maximum(jnp.abs(residual_T), delta)
        # log of the new law is linear in it here: the fixed point is the Huber fit.
        target_T = law_T * (1.0 - residual_T)
        relative_T = weight_T * huber_T / law_T**2
        return _project(log_T, target_T, relative_T, exponents, lowest=0.0)[:3]

    params = _project(log_T, loss_T, weight_T, exponents, lowest=0.0)[:3]
    start, drop, alpha = lax.fori_loop(0, num_iterations, reweight, params)
    nothing = jnp.full((), jnp.nan)
    law = PowerLaw(
        start - drop, drop, alpha, unit, nothing, nothing, jnp.full((3, 3), jnp.nan)
    )
    enough = (jnp.sum(known_T) >= 3) & jnp.isfinite(start) & jnp.isfinite(drop)
    return jax.tree.map(lambda leaf: jnp.where(enough, leaf, jnp.nan), law)


def _stderr(root_33, gradient_3):
    return jnp.linalg.norm(jnp.einsum("...ij,...i->...j", root_33, gradient_3), axis=-1)
