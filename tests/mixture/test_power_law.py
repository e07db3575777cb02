"""Fitted power laws against scipy, known laws, and data that hold none."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from dcft_jax.mixture.history import empty_history
from dcft_jax.mixture.power_law import (
    fit_power_law,
    fit_power_law_robustly,
    predict,
)


def history_of(position_TK, loss_TK, stderr_TK=None, capacity=64):
    """A history that holds these entries and no others."""
    length, num_abilities = loss_TK.shape
    blank = np.full((capacity, num_abilities), np.nan, np.float32)

    def padded(value_TK):
        out = blank.copy()
        out[:length] = value_TK
        return jnp.asarray(out)

    if stderr_TK is None:
        stderr_TK = np.full_like(loss_TK, np.nan)
    return replace(
        empty_history(num_abilities, capacity),
        position_TK=padded(np.broadcast_to(position_TK, loss_TK.shape)),
        loss_TK=padded(loss_TK),
        stderr_TK=padded(stderr_TK),
        num_entries=jnp.asarray(length, jnp.int32),
    )


TRUE = np.array(
    [(1.2, 0.9, 0.5), (0.3, 2.0, 0.9), (2.0, 0.4, 0.25)]
)  # eps, drop, alpha
POSITION = np.geomspace(1e3, 1e7, 40)


def curves(true=TRUE, position=POSITION):
    eps, drop, alpha = true.T
    return eps + drop * (position[:, None] / position[0]) ** -alpha


def test_exact_curves_give_back_their_law():
    law = fit_power_law(history_of(POSITION[:, None], curves()))
    eps, drop, alpha = TRUE.T
    np.testing.assert_allclose(law.irreducible_K, eps, rtol=2e-4)
    np.testing.assert_allclose(law.exponent_K, alpha, rtol=5e-4)
    np.testing.assert_allclose(law.coefficient_K, drop * 1e3**alpha, rtol=5e-3)
    loss_K, stderr_K = predict(law, jnp.full(3, 1e9))
    np.testing.assert_allclose(loss_K, curves(position=np.array([1e3, 1e9]))[1], 1e-3)
    assert np.all(np.asarray(stderr_K) < 1e-3)


def scipy_squares(position, loss, weight):
    x = np.log(position / position[0])

    def objective(params):
        eps, drop, alpha = np.exp(params)
        return np.sum(weight * (eps + drop * np.exp(-alpha * x) - loss) ** 2)

    starts = [
        np.log([loss.min() * s, np.ptp(loss), a])
        for s in (0.1, 0.9)
        for a in (0.1, 0.5)
    ]
    options = dict(maxiter=20_000, maxfev=20_000, xatol=1e-10, fatol=1e-14)
    runs = [
        minimize(objective, s, method="Nelder-Mead", options=options) for s in starts
    ]
    best = min(runs, key=lambda run: run.fun)
    return np.exp(best.x), best.fun


@pytest.mark.parametrize("weighted", [False, True])
def test_noisy_curves_give_the_least_squares_of_scipy(weighted):
    rng = np.random.default_rng(0)
    stderr = (
        0.01 * (1 + 4 * rng.random((40, 3))) if weighted else np.full((40, 3), 0.01)
    )
    loss = np.float32(curves() + stderr * rng.standard_normal((40, 3)))
    law = fit_power_law(
        history_of(POSITION[:, None], loss, stderr if weighted else None)
    )
    for k in range(3):
        expected, _ = scipy_squares(
            POSITION, np.float64(loss[:, k]), stderr[:, k] ** -2
        )
        found = [law.irreducible_K[k], law.drop_K[k], law.exponent_K[k]]
        np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_huber_fit_reaches_the_objective_of_scipy():
    rng = np.random.default_rng(1)
    loss = np.float32(curves() * np.exp(0.004 * rng.standard_t(2, (40, 3))))
    law = fit_power_law_robustly(history_of(POSITION[:, None], loss))
    x, delta = np.log(POSITION / POSITION[0]), 1e-3

    def objective(params, target):
        eps, drop, alpha = params
        r = np.abs(np.log(eps + drop * np.exp(-alpha * x)) - target)
        return np.sum(np.where(r > delta, delta * (r - delta / 2), r**2 / 2))

    for k in range(3):
        target = np.log(np.float64(loss[:, k]))
        found = np.array([law.irreducible_K[k], law.drop_K[k], law.exponent_K[k]])
        start = np.minimum(TRUE[k], [9, 9, 0.79])
        bounds = [(1e-9, None), (1e-9, None), (0.001, 0.8)]
        options = dict(maxiter=20_000, maxfev=20_000, xatol=1e-10, fatol=1e-16)
        runs = [
            minimize(
                objective, s, (target,), "Nelder-Mead", bounds=bounds, options=options
            )
            for s in (start, np.minimum(found, [9, 9, 0.79]))
        ]
        best = min(run.fun for run in runs)
        assert objective(found, target) <= 1.01 * best


def test_huber_fit_shrugs_off_outliers():
    loss = curves(TRUE[:1])
    loss[[5, 17, 30]] *= 3
    law = fit_power_law_robustly(history_of(POSITION[:, None], loss))
    np.testing.assert_allclose(law.irreducible_K, TRUE[:1, 0], rtol=0.01)
    np.testing.assert_allclose(law.exponent_K, TRUE[:1, 2], rtol=0.03)


def test_standard_errors_cover():
    rng = np.random.default_rng(2)
    true, num = np.array([1.2, 0.9, 0.5]), 400
    clean = curves(true[None])
    law = fit_power_law(
        history_of(POSITION[:, None], clean + 0.01 * rng.standard_normal((40, num)))
    )
    identified = np.isfinite(law.irreducible_K)
    assert identified.mean() > 0.99
    error = np.abs(law.irreducible_K - true[0]) / law.irreducible_stderr_K
    loss_K, stderr_K = predict(law, jnp.full(num, 1e8))
    ahead = np.abs(loss_K - curves(true[None], np.array([1e3, 1e8]))[1]) / stderr_K
    for z in (error[identified], ahead[identified]):
        assert 0.63 < np.mean(z < 1) < 0.74  # 0.683 +- 2.4 standard errors
        assert 0.92 < np.mean(z < 2) < 0.98  # 0.954
    np.testing.assert_allclose(np.nanmean(law.noise_K), 0.01, rtol=0.05)


NOT_A_LAW = {
    "nothing": np.full((40, 1), np.nan),
    "few": np.where(np.arange(40)[:, None] < 7, curves(TRUE[:1]), np.nan),
    "flat": np.full((40, 1), 1.5),
    "noise": 1.5 + 0.1 * np.random.default_rng(3).standard_normal((40, 1)),
    "rising": 3.0 - curves(TRUE[:1]),
    "straight in log n": 3.0 - 0.1 * np.log(POSITION)[:, None],
    "broken": np.full((40, 1), 1e30) * np.array([1, -1] * 20)[:, None],
    "zero": np.zeros((40, 1)),
}


@pytest.mark.parametrize("kind", NOT_A_LAW)
def test_where_the_data_hold_no_law_there_is_none(kind):
    loss = np.concatenate([NOT_A_LAW[kind], curves(TRUE[:1])], axis=1)
    law = fit_power_law(history_of(POSITION[:, None], loss))
    for leaf in jax.tree.leaves(law):
        assert np.all(np.isnan(leaf[0])), kind
        assert np.all(np.isfinite(leaf[1])), kind


def test_noise_is_hardly_ever_taken_for_a_law():
    rng = np.random.default_rng(4)
    law = fit_power_law(
        history_of(POSITION[:, None], 1.5 + 0.1 * rng.standard_normal((40, 500)))
    )
    assert np.isfinite(law.irreducible_K).mean() < 0.01


def test_positions_that_do_not_differ_hold_no_law():
    law = fit_power_law(history_of(np.full((40, 1), 1e4), curves(TRUE[:1])))
    assert np.isnan(law.irreducible_K).all()


@pytest.mark.parametrize("kind", ["few", "flat", "noise", "rising", "zero", "broken"])
def test_robust_fits_are_finite_or_nan_as_a_whole(kind):
    law = fit_power_law_robustly(history_of(POSITION[:, None], NOT_A_LAW[kind]))
    found = np.array([law.irreducible_K, law.drop_K, law.exponent_K])
    assert np.all(np.isfinite(found)) or np.all(np.isnan(found))


def test_entries_at_position_zero_and_missing_ones_do_not_count():
    position = np.concatenate([[0.0], POSITION])
    loss = np.concatenate([[[9.0]], curves(TRUE[:1])])
    loss[[4, 9]] = np.nan
    law = fit_power_law(history_of(position[:, None], loss))
    np.testing.assert_allclose(law.irreducible_K, TRUE[:1, 0], rtol=2e-4)


def test_the_unit_of_positions_does_not_matter():
    rng = np.random.default_rng(5)
    loss = curves() + 0.01 * rng.standard_normal((40, 3))
    base, scaled = (
        fit_power_law(history_of(POSITION[:, None] * s, loss)) for s in (1, 1e4)
    )
    for name in ("irreducible_K", "exponent_K", "irreducible_stderr_K"):
        np.testing.assert_allclose(
            getattr(scaled, name), getattr(base, name), rtol=1e-3
        )


@functools.cache
def law_of_true():
    return fit_power_law(history_of(POSITION[:, None], curves()))


def test_prediction_is_the_formula():
    law, n = law_of_true(), jnp.array([1e4, 1e5, 1e8])
    expected = law.irreducible_K + law.coefficient_K * n**-law.exponent_K
    np.testing.assert_allclose(predict(law, n)[0], expected, rtol=1e-5)
