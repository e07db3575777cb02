"""Laws are recovered from mixtures that were tried, and their minima are minima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.meta.held_out import held_out_error, spearman
from dcft_jax.meta.regret import measured_mixtures, minimum, regret, solve
from dcft_jax.meta.surrogate import KINDS, Law, evaluate, fit_laws, gradient, pad
from tests.meta.synthetic_cases import make_case, make_mixtures


def with_loss(law: Law, count=40, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    K = len(law.linear_K)
    case = make_case(rng, num_abilities=K, count=count)
    loss_N = evaluate(law, case.weights_NK) + noise * rng.standard_normal(count)
    return case._replace(loss_N=loss_N)


def nothing(K, M=1):
    return Law(0.0, np.zeros(M), np.zeros((M, K)), np.zeros(K), np.zeros((K, K)))


LOG_LINEAR = nothing(3)._replace(
    constant=0.8, scale_M=np.array([0.9]), slope_MK=np.array([[-2.0, 0.3, -0.5]])
)
TWO_DOMAIN = nothing(3, 2)._replace(
    constant=0.8,
    scale_M=np.array([0.5, 0.4]),
    slope_MK=np.array([[-4.0, 0.0, 0.5], [0.0, -5.0, 0.0]]),
)
QUADRATIC = nothing(3)._replace(
    constant=1.0,
    linear_K=np.array([0.1, -0.4, 0.2]),
    quadratic_KK=np.array([[0.5, 0.2, 0.0], [0.2, 0.9, 0.0], [0.0, 0.0, 0.3]]),
)
KNOWN = {"log-linear": LOG_LINEAR, "two-domain": TWO_DOMAIN, "quadratic": QUADRATIC}


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_law_is_recovered(kind):
    true = KNOWN[kind]
    (law,) = fit_laws(kind, [with_loss(true)])
    new_NK = make_mixtures(np.random.default_rng(9), 3, 200)
    expected_N, found_N = evaluate(true, new_NK), evaluate(law, new_NK)
    assert np.abs(found_N - expected_N).max() < 0.02 * np.ptp(expected_N)
    np.testing.assert_allclose(minimum(law), minimum(true), atol=0.01)


def test_an_outlier_moves_the_law_little():
    case = with_loss(LOG_LINEAR, noise=0.005)
    case.loss_N[10] += 3.0
    (law,) = fit_laws("log-linear", [case])
    error_N = np.delete(evaluate(law, case.weights_NK) - case.loss_N, 10)
    assert np.abs(error_N).max() < 0.05


def test_cases_are_fitted_together_as_alone():
    cases = [with_loss(LOG_LINEAR, noise=0.01)]
    cases.append(make_case(np.random.default_rng(3), num_abilities=5, count=31))
    together = fit_laws("two-domain", cases)
    new_NK = make_mixtures(np.random.default_rng(9), 3, 50)
    (alone,) = fit_laws("two-domain", cases[:1])
    np.testing.assert_allclose(
        evaluate(together[0], new_NK), evaluate(alone, new_NK), rtol=2e-3
    )


def test_noise_alone_gives_a_nearly_flat_law():
    rng = np.random.default_rng(4)
    case = with_loss(nothing(3)._replace(constant=1.0), count=60, noise=0.1, seed=5)
    for kind in KINDS:
        (law,) = fit_laws(kind, [case])
        assert np.std(evaluate(law, rng.dirichlet(np.ones(3), 100))) < 0.06, kind


def test_a_mask_leaves_models_out():
    case = with_loss(QUADRATIC)
    case.loss_N[:5] = 7.0
    mask_N = np.arange(len(case.loss_N)) >= 5
    (law,) = fit_laws("quadratic", [case], [mask_N])
    np.testing.assert_allclose(
        evaluate(law, case.weights_NK[5:]), case.loss_N[5:], atol=0.01
    )


@pytest.mark.parametrize("name", KNOWN)
def test_gradient_is_the_derivative(name):
    law, w_K = KNOWN[name], np.array([0.5, 0.2, 0.3])
    with jax.enable_x64(True):
        expected_K = jax.grad(lambda w: evaluate(law, w, jnp))(jnp.asarray(w_K))
    np.testing.assert_allclose(gradient(law, w_K), expected_K, rtol=1e-9)


@pytest.mark.parametrize("name", KNOWN)
def test_gradient_of_regret_against_finite_differences(name):
    law, w_K, eps = KNOWN[name], np.array([0.5, 0.2, 0.3]), 1e-6
    numeric_K = [
        (regret(law, w_K + eps * e) - regret(law, w_K - eps * e)) / (2 * eps)
        for e in np.eye(3)
    ]
    np.testing.assert_allclose(gradient(law, w_K), numeric_K, rtol=1e-6, atol=1e-8)


def test_padding_changes_nothing():
    law, w_NK = TWO_DOMAIN, make_mixtures(np.random.default_rng(0), 3, 10)
    padded = pad(law, 5)
    np.testing.assert_allclose(
        evaluate(padded, np.pad(w_NK, ((0, 0), (0, 2)))), evaluate(law, w_NK)
    )


def test_the_log_linear_law_is_least_in_a_corner():
    assert regret(LOG_LINEAR, np.array([1.0, 0.0, 0.0])) == 0.0
    assert minimum(LOG_LINEAR) == pytest.approx(0.8 + 0.9 * np.exp(-2.0))


def test_a_minimum_inside_is_found():
    # |w - m|^2 has its minimum at m.
    m_K = np.array([0.2, 0.5, 0.3])
    law = nothing(3)._replace(
        constant=m_K @ m_K, linear_K=-2 * m_K, quadratic_KK=np.eye(3)
    )
    assert minimum(law) == pytest.approx(0.0, abs=1e-8)
    assert regret(law, m_K) == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("K", [2, 6, 16])
def test_no_mixture_is_below_the_minimum(K):
    rng = np.random.default_rng(K)
    root = rng.standard_normal((K, K))
    law = nothing(K)._replace(
        linear_K=rng.standard_normal(K), quadratic_KK=root + root.T
    )
    assert np.all(regret(law, rng.dirichlet(np.full(K, 0.3), 2000)) >= 0)


def test_solved_cases_have_positive_mixtures():
    (solved,) = solve([make_case(np.random.default_rng(0))], "log-linear")
    assert np.all(solved.best_K > 0)
    np.testing.assert_allclose(solved.best_K.sum(), 1.0)
    low, high = np.quantile(solved.case.loss_N, [0.1, 0.9])
    assert solved.spread == pytest.approx(float(high - low))


def test_held_out_error_knows_a_law_from_noise():
    law = held_out_error("log-linear", with_loss(LOG_LINEAR, noise=0.002))
    assert law.r2 > 0.98 and law.spearman > 0.95 and law.rmse < 0.01
    flat = nothing(3)._replace(constant=1.0)
    noise = held_out_error("log-linear", with_loss(flat, count=60, noise=0.1))
    assert noise.r2 < 0.2


def test_seeds_of_a_mixture_are_held_out_together():
    # Losses that only the mixture's own other seed could predict.
    case = make_case(np.random.default_rng(0), num_abilities=2, count=12)
    loss_N = np.random.default_rng(1).standard_normal(12)
    share_N = np.linspace(0.0, 1.0, 12)
    weights_NK = np.stack([share_N, 1.0 - share_N], axis=1)
    case = case._replace(
        weights_NK=np.tile(weights_NK, (2, 1)), loss_N=np.tile(loss_N, 2)
    )
    assert held_out_error("quadratic", case).r2 < 0.3
    assert len(measured_mixtures(case)[1]) == len(np.unique(loss_N))


def test_spearman_by_hand():
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([5.0, 6.0, 9.0])) == 1.0
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == 0.5
    assert np.isnan(spearman(np.ones(3), np.arange(3.0)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss_N": np.array([1, np.nan, 2, 3.0])}, "loss_N holds nan"),
        ({"weights_NK": np.ones((4, 3))}, "sums to 3"),
        ({"loss_N": np.ones(3), "weights_NK": np.eye(3)}, "at least 4"),
    ],
)
def test_bad_cases_are_named(change, message):
    case = make_case(np.random.default_rng(0), task="gcd")
    case = case._replace(weights_NK=case.weights_NK[:4], loss_N=case.loss_N[:4])
    with pytest.raises(ValueError, match=message) as error:
        fit_laws("log-linear", [case._replace(**change)])
    assert "'gcd'" in str(error.value)


def test_unknown_kind():
    with pytest.raises(ValueError, match="cubic"):
        fit_laws("cubic", [])
