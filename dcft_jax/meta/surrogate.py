"""Laws from a mixture to a task's loss at the end of training, fitted case by case.

A law stands in for training runs that nobody made: the regret of any mixture is known
from those that were tried.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dcft_jax.meta.case import Case
from dcft_jax.meta.levenberg import levenberg

KINDS = ("log-linear", "two-domain", "quadratic")
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # in units of the standardised losses
CAUTION = 1.4  # a parameter counts as so many in cross-validation (Kim and Gu 2004)
CHUNK = 2000  # problems solved together
STARTS = 4
MIN_MODELS = 4


class Law(NamedTuple):
    """`c + sum_m k_m exp(t_m . w) + b . w + w' Q w`, nats per response token.

    All kinds have this form, with zeros for what they lack, so that laws of abilities
    that differ in number are padded with zeros and evaluated together.

    Attributes:
        constant: c.
        scale_M: k, >= 0.
        slope_MK: t.
        linear_K: b.
        quadratic_KK: Q, symmetric.
    """

    constant: Any
    scale_M: Any
    slope_MK: Any
    linear_K: Any
    quadratic_KK: Any


def evaluate(law: Law, weights_K: Any, xp: Any = np) -> Any:
    """Loss of a mixture, or of several along leading axes, in nats.

    Args:
      xp: numpy, or jax.numpy where it is to be differentiated.
    """
    power_M = xp.exp(xp.einsum("...k,mk->...m", weights_K, law.slope_MK))
    curved = xp.einsum(
        "...j,jk,...k->...", weights_K, law.quadratic_KK, weights_K
    ) + xp.einsum("...k,k->...", weights_K, law.linear_K)
    return law.constant + xp.einsum("...m,m->...", power_M, law.scale_M) + curved


def gradient(law: Law, weights_K: np.ndarray) -> np.ndarray:
    """Of `evaluate` with respect to the weights."""
    power_M = law.scale_M * np.exp(weights_K @ law.slope_MK.T)
    return power_M @ law.slope_MK + law.linear_K + 2.0 * weights_K @ law.quadratic_KK


def pad(law: Law, num_abilities: int) -> Law:
    """The same law next to abilities that are not there: their weights must be 0."""
    more = num_abilities - len(law.linear_K)
    return law._replace(
        slope_MK=np.pad(law.slope_MK, ((0, 0), (0, more))),
        linear_K=np.pad(law.linear_K, (0, more)),
        quadratic_KK=np.pad(law.quadratic_KK, ((0, more), (0, more))),
    )


def fit_laws(
    kind: str, cases: Sequence[Case], masks: Sequence[np.ndarray] | None = None
) -> list[Law]:
    """The law of each case.

    - "log-linear": `c + k exp(t . w)` (Data Mixing Laws, arXiv:2403.16952, eq. 1;
      Olmix, arXiv:2602.12237). It falls along one direction, so its minimum over all
      mixtures is always a single ability.
    - "two-domain": `c + k_1 exp(t_1 . w) + k_2 exp(t_2 . w)`, for a task that needs two
      things at once (implicit domains of arXiv:2403.16952, section 3.3); convex, and
      its minimum may be a true mixture.
    - "quadratic": `c + b . w + w' Q w`, ridge regression (the simple regressor to
      compare with, in the place of RegMix's, arXiv:2407.01492); may be of any shape.

    Losses are standardised; the ridge is chosen per case by generalised
    cross-validation (Golub, Heath and Wahba 1979). The exponential laws are fitted from
    `STARTS` starts with Huber's loss.

    Args:
      masks: for each case bool [N], the models to fit; None: all.

    Raises:
      ValueError: an unknown kind, weights that are no mixtures, a loss that is not
        finite, or fewer than `MIN_MODELS` models.
    """
    if kind not in KINDS:
        raise ValueError(f"kind of surrogate {kind!r}: there are {KINDS}")
    if masks is None:
        masks = [np.ones(len(case.loss_N), bool) for case in cases]
    for case, mask_N in zip(cases, masks, strict=True):
        _check(case, mask_N)
    if kind == "quadratic":
        return [_quadratic(case, mask) for case, mask in zip(cases, masks, strict=True)]
    num_domains = {"log-linear": 1, "two-domain": 2}[kind]
    step = max(1, CHUNK // (len(RIDGES) * STARTS))
    laws = []
    for i in range(0, len(cases), step):
        laws += _exponential(num_domains, cases[i : i + step], masks[i : i + step])
    return laws


def _check(case: Case, mask_N: np.ndarray) -> None:
    where = f"case of task {case.task!r} in world {case.world!r}"
    if mask_N.sum() < MIN_MODELS:
        raise ValueError(
            f"{where}: {int(mask_N.sum())} models, a law needs at least {MIN_MODELS}; "
            "collect more mixtures or leave the case out"
        )
    if not np.all(np.isfinite(case.loss_N)):
        raise ValueError(
            f"{where}: loss_N holds {case.loss_N[~np.isfinite(case.loss_N)][0]}; leave "
            "models that diverged out"
        )
    sums_N = case.weights_NK.sum(axis=1)
    if np.any(case.weights_NK < 0) or np.any(np.abs(sums_N - 1) > 1e-3):
        raise ValueError(
            f"{where}: weights_NK must be >= 0 with rows that sum to 1, found a row "
            f"that sums to {sums_N[np.argmax(np.abs(sums_N - 1))]:.4g}"
        )


# ------------------------------------------------------------ quadratic, in closed form


def _quadratic(case: Case, mask_N: np.ndarray) -> Law:
    weights_NK = np.asarray(case.weights_NK, np.float64)[mask_N]
    loss_N = np.asarray(case.loss_N, np.float64)[mask_N]
    K = weights_NK.shape[1]
    i, j = np.triu_indices(K)
    # With sqrt(2) the ridge is that of the entries of Q, whatever the basis.
    twice = np.where(i == j, 1.0, np.sqrt(2.0))
    column_NP = np.concatenate(
        [weights_NK, twice * weights_NK[:, i] * weights_NK[:, j]], axis=1
    )
    mean_P, mean = column_NP.mean(axis=0), loss_N.mean()
    theta_P = ridge_by_gcv(column_NP - mean_P, loss_N - mean)
    quadratic_KK = np.zeros((K, K))
    quadratic_KK[i, j] = theta_P[K:] * twice / 2.0
    quadratic_KK = quadratic_KK + quadratic_KK.T
    constant = mean - mean_P @ theta_P
    return Law(constant, np.zeros(1), np.zeros((1, K)), theta_P[:K], quadratic_KK)


def ridge_by_gcv(column_NP: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    """Coefficients [P] of a ridge regression of centred columns on a centred target.

    The ridge is chosen by generalised cross-validation, on a grid of seven decades.
    """
    left_NR, singular_R, right_RP = np.linalg.svd(column_NP, full_matrices=False)
    kept_R = singular_R > 1e-10 * max(singular_R.max(initial=0.0), 1e-30)
    left_NR, singular_R = left_NR[:, kept_R], singular_R[kept_R]
    projected_R = left_NR.T @ target_N
    best, chosen_R = np.inf, np.zeros_like(singular_R)
    for ridge in 10.0 ** np.arange(-6.0, 1.5, 0.5) * np.sum(singular_R**2):
        shrink_R = singular_R**2 / (singular_R**2 + ridge)
        squares = np.sum((target_N - left_NR @ (shrink_R * projected_R)) ** 2)
        score = _gcv(squares, shrink_R.sum(), len(target_N))
        if score < best:
            best, chosen_R = score, shrink_R * projected_R / singular_R
    return right_RP[kept_R].T @ chosen_R


def _gcv(squares: Any, freedom: Any, count: Any) -> Any:
    """Larger than all others where there are no residuals left to judge by."""
    left = count - CAUTION * (freedom + 1.0)
    return np.where(left > 0, squares / np.maximum(left, 1e-9) ** 2, np.inf)


# ----------------------------------------------------- sums of exponentials, by descent


def _exponential(num_domains: int, cases, masks) -> list[Law]:
    """Every case with every ridge and start is a problem of one batch."""
    M, K = num_domains, max(case.weights_NK.shape[1] for case in cases)
    N = max(len(case.loss_N) for case in cases)
    weights_CNK, target_CN = np.zeros((len(cases), N, K)), np.zeros((len(cases), N))
    mask_CN = np.zeros((len(cases), N))
    moments = []
    for c, (case, mask_N) in enumerate(zip(cases, masks, strict=True)):
        n, k = case.weights_NK.shape
        centre_K = np.mean(case.weights_NK[mask_N], axis=0, dtype=np.float64)
        mean, spread = _location_and_scale(case.loss_N[mask_N])
        weights_CNK[c, :n, :k] = case.weights_NK - centre_K
        target_CN[c, :n] = (case.loss_N - mean) / spread
        mask_CN[c, :n] = mask_N
        moments.append((centre_K, mean, spread))
    weights_CNK *= mask_CN[..., None]
    start_CSP = _starts(M, weights_CNK, target_CN * mask_CN)
    C, S, P = start_CSP.shape
    R = len(RIDGES)
    penalised_P = np.r_[0.0, np.ones(P - 1)]  # not the constant
    ridge_RP = np.array(RIDGES)[:, None] * penalised_P

    def spread_out(array_C: np.ndarray) -> np.ndarray:
        return np.repeat(array_C, R * S, axis=0)

    weights_BNK = spread_out(weights_CNK)
    theta_BP, cost_B, freedom_B = levenberg(
        lambda theta_BP: _model(M, weights_BNK, theta_BP),
        spread_out(target_CN),
        spread_out(mask_CN),
        np.tile(np.repeat(ridge_RP, S, axis=0), (C, 1)),
        np.tile(start_CSP[:, None], (1, R, 1, 1)).reshape(C * R * S, P),
    )
    shape = (C, R, S)
    cost_CRS = np.where(np.isfinite(cost_B), cost_B, np.inf).reshape(shape)
    best_CR = np.argmin(cost_CRS, axis=2)[..., None]
    theta_CRP = np.take_along_axis(
        theta_BP.reshape(*shape, P), best_CR[..., None], axis=2
    )[:, :, 0]
    cost_CR = np.take_along_axis(cost_CRS, best_CR, axis=2)[..., 0]
    squares_CR = cost_CR - np.sum(ridge_RP * theta_CRP**2, axis=2)
    freedom_CR = np.take_along_axis(freedom_B.reshape(shape), best_CR, axis=2)[..., 0]
    # The trace has the constant in it, which `_gcv` counts itself.
    score_CR = _gcv(squares_CR, freedom_CR - 1.0, mask_CN.sum(axis=1)[:, None])
    # The strongest ridge of equals: too few models for the parameters.
    chosen_C = R - 1 - np.argmin(score_CR[:, ::-1], axis=1)
    return [_law(M, theta_CRP[c, chosen_C[c]], *moments[c]) for c in range(len(cases))]


def _location_and_scale(loss_N: np.ndarray) -> tuple[float, float]:
    """Median and a spread that a few outliers do not decide."""
    low, middle, high = np.quantile(loss_N.astype(np.float64), [0.1, 0.5, 0.9])
    spread = (high - low) / 2.56  # the standard deviation of normal losses
    return float(middle), float(spread if spread > 0 else max(np.std(loss_N), 1e-12))


def _starts(num_domains: int, weights_CNK, target_CN) -> np.ndarray:
    """From the linear law, as more and as less curved exponentials, [C, S, P]."""
    K = weights_CNK.shape[2]
    normal_CKK = np.swapaxes(weights_CNK, 1, 2) @ weights_CNK + 0.1 * np.eye(K)
    product_CK = np.einsum("cnk,cn->ck", weights_CNK, target_CN)
    linear_CK = np.linalg.solve(normal_CKK, product_CK[..., None])[..., 0]
    linear_CK *= np.minimum(
        1.0, 8.0 / np.maximum(np.abs(linear_CK).max(axis=1, keepdims=True), 1e-12)
    )
    starts = []
    rng = np.random.default_rng(0)
    for log_scale in np.linspace(1.0, -1.0, STARTS):
        parts = []
        for _ in range(num_domains):
            # Domains that start alike would stay alike.
            noise_K = rng.standard_normal(K) * (num_domains > 1)
            slope_CK = linear_CK * np.exp(-log_scale) / num_domains + noise_K
            parts.append(np.clip(slope_CK, -10.0, 10.0))
        log_CM = np.full((len(linear_CK), num_domains), log_scale)
        constant_C1 = -np.exp(log_CM).sum(axis=1, keepdims=True)
        starts.append(np.concatenate([constant_C1, log_CM, *parts], axis=1))
    return np.stack(starts, axis=1)


def _model(num_domains: int, weights_BNK, theta_BP) -> tuple[np.ndarray, np.ndarray]:
    """`c + sum_m exp(a_m + t_m . u)` and its Jacobian; theta is (c, a_M, t_MK)."""
    M, (B, N, K) = num_domains, weights_BNK.shape
    slope_BMK = theta_BP[:, 1 + M :].reshape(B, M, K)
    exponent_BNM = theta_BP[:, None, 1 : 1 + M] + weights_BNK @ np.swapaxes(
        slope_BMK, 1, 2
    )
    power_BNM = np.exp(np.minimum(exponent_BNM, 30.0))
    value_BN = theta_BP[:, :1] + power_BNM.sum(axis=2)
    moved_BNMK = power_BNM[..., None] * weights_BNK[:, :, None]
    jacobian_BNP = np.concatenate(
        [np.ones((B, N, 1)), power_BNM, moved_BNMK.reshape(B, N, M * K)], axis=2
    )
    return value_BN, jacobian_BNP


def _law(num_domains: int, theta_P, centre_K, mean: float, spread: float) -> Law:
    M, K = num_domains, len(centre_K)
    slope_MK = theta_P[1 + M :].reshape(M, -1)[:, :K]
    log_scale_M = theta_P[1 : 1 + M] - slope_MK @ centre_K
    return Law(
        constant=mean + spread * theta_P[0],
        scale_M=spread * np.exp(log_scale_M),
        slope_MK=slope_MK,
        linear_K=np.zeros(K),
        quadratic_KK=np.zeros((K, K)),
    )
