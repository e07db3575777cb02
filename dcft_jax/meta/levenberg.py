"""Many small non-linear least-squares problems at once, in float64."""

from collections.abc import Callable

import numpy as np

# Of parameters theta_BP and a slice of the problems: (value_BN, jacobian_BNP).
Model = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

HUBER = 2.0  # residuals beyond so many scales count linearly
ROUNDS, ITERATIONS = 3, 15


def levenberg(
    model: Model,
    target_BN: np.ndarray,
    mask_BN: np.ndarray,
    ridge_BP: np.ndarray,
    start_BP: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levenberg-Marquardt (Marquardt 1963) for B problems of N residuals each.

    Minimises `sum_n h_n (model_n - target_n)^2 + sum_p ridge_p theta_p^2` where h are
    Huber's weights, reweighted `ROUNDS` times with the scale of the residuals (1.4826
    times their median absolute value).

    Args:
      mask_BN: 1 where there is a residual, 0 where there is none.

    Returns:
      theta_BP; the minimum of the objective [B]; effective number of parameters [B],
      the trace of the hat matrix of the linearised problem.
    """
    theta_BP, weight_BN = start_BP.copy(), mask_BN.astype(np.float64)
    for _ in range(ROUNDS):
        theta_BP = _descend(model, target_BN, weight_BN, ridge_BP, theta_BP)
        residual_BN = model(theta_BP)[0] - target_BN
        weight_BN = mask_BN * _huber(residual_BN, mask_BN)
    value_BN, jacobian_BNP = model(theta_BP)
    cost_B = _cost(value_BN - target_BN, weight_BN, ridge_BP, theta_BP)
    normal_BPP = _normal(jacobian_BNP, weight_BN)
    damped_BPP = normal_BPP + _diagonal(ridge_BP + 1e-10)
    freedom_B = np.trace(np.linalg.solve(damped_BPP, normal_BPP), axis1=1, axis2=2)
    return theta_BP, cost_B, freedom_B


def _descend(model, target_BN, weight_BN, ridge_BP, theta_BP) -> np.ndarray:
    damping_B = np.full(len(theta_BP), 1e-2)
    value_BN, jacobian_BNP = model(theta_BP)
    residual_BN = value_BN - target_BN
    cost_B = _cost(residual_BN, weight_BN, ridge_BP, theta_BP)
    for _ in range(ITERATIONS):
        slope_BP = np.einsum("bnp,bn->bp", jacobian_BNP, weight_BN * residual_BN)
        slope_BP += ridge_BP * theta_BP
        normal_BPP = _normal(jacobian_BNP, weight_BN) + _diagonal(ridge_BP)
        scale_BP = np.einsum("bpp->bp", normal_BPP) + 1e-8
        damped_BPP = normal_BPP + _diagonal(damping_B[:, None] * scale_BP + 1e-12)
        step_BP = np.linalg.solve(damped_BPP, slope_BP[..., None])[..., 0]
        tried_BP = theta_BP - step_BP
        value_BN, tried_BNP = model(tried_BP)
        tried_residual_BN = value_BN - target_BN
        tried_B = _cost(tried_residual_BN, weight_BN, ridge_BP, tried_BP)
        better_B = tried_B < cost_B  # False for nan
        theta_BP = np.where(better_B[:, None], tried_BP, theta_BP)
        residual_BN = np.where(better_B[:, None], tried_residual_BN, residual_BN)
        jacobian_BNP = np.where(better_B[:, None, None], tried_BNP, jacobian_BNP)
        cost_B = np.where(better_B, tried_B, cost_B)
        damping_B = np.clip(damping_B * np.where(better_B, 0.2, 5.0), 1e-9, 1e9)
    return theta_BP


def _huber(residual_BN: np.ndarray, mask_BN: np.ndarray) -> np.ndarray:
    size_BN = np.abs(residual_BN)
    median_B = np.nanmedian(np.where(mask_BN > 0, size_BN, np.nan), axis=1)
    # Of residuals that are all rounding none is an outlier.
    bound_B = HUBER * np.maximum(1.4826 * median_B, 1e-6)
    return np.minimum(1.0, bound_B[:, None] / np.maximum(size_BN, 1e-12))


def _cost(residual_BN, weight_BN, ridge_BP, theta_BP) -> np.ndarray:
    return np.sum(weight_BN * residual_BN**2, 1) + np.sum(ridge_BP * theta_BP**2, 1)


def _normal(jacobian_BNP, weight_BN) -> np.ndarray:
    return np.swapaxes(jacobian_BNP * weight_BN[..., None], 1, 2) @ jacobian_BNP


def _diagonal(value_BP: np.ndarray) -> np.ndarray:
    return value_BP[..., None] * np.eye(value_BP.shape[-1])
