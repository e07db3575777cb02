import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import linregress

from dcft_jax.mixture import empty_history, recent_slope, record


def history_of(loss_TK, start=1.0):
    history = empty_history(loss_TK.shape[1])
    for t, loss_K in enumerate(loss_TK):
        position_K = jnp.full(len(loss_K), start + t)
        history = record(history, position_K, jnp.asarray(loss_K), jnp.zeros(2))
    return history


def test_slope_and_error_are_those_of_scipy():
    rng = np.random.default_rng(0)
    loss = np.float32(2.0 - 0.03 * np.arange(12)[:, None] + 0.1 * rng.random((12, 2)))
    loss[9, 1] = np.nan
    slope_K, stderr_K = recent_slope(history_of(loss, start=1000.0), window=8)
    for k in range(2):
        y = loss[-8:, k]
        x = np.arange(8)[np.isfinite(y)]
        expected = linregress(x, y[np.isfinite(y)])
        np.testing.assert_allclose(slope_K[k], expected.slope, rtol=1e-4)
        np.testing.assert_allclose(stderr_K[k], expected.stderr, rtol=1e-4)


def test_old_entries_do_not_count():
    loss = np.ones((12, 2))
    loss[:6] = 9.0
    slope_K, stderr_K = recent_slope(history_of(loss), window=6)
    np.testing.assert_allclose([slope_K, stderr_K], np.zeros((2, 2)), atol=1e-7)


def test_fewer_than_three_entries_say_nothing():
    loss = np.array([[1.0, 1.0], [0.9, np.nan], [0.8, 0.9]])
    slope_K, stderr_K = recent_slope(history_of(loss))
    np.testing.assert_allclose(slope_K, [-0.1, np.nan], rtol=1e-5)
    assert np.isfinite(stderr_K[0]) and np.isnan(stderr_K[1])
    assert np.isnan(recent_slope(empty_history(2))).all()


def test_standard_errors_cover():
    rng = np.random.default_rng(1)
    loss = 2.0 - 0.01 * np.arange(20)[:, None] + 0.02 * rng.standard_normal((20, 400))
    history = empty_history(400)
    for t, loss_K in enumerate(loss):
        history = record(
            history, jnp.float32(t + 1), jnp.asarray(loss_K), jnp.zeros(400)
        )
    slope_K, stderr_K = recent_slope(history, window=20)
    z = np.abs(slope_K + 0.01) / stderr_K
    assert 0.88 < np.mean(z < 1.734) < 0.93  # t with 18 degrees of freedom: 0.9


def test_bad_window():
    with pytest.raises(ValueError, match="window"):
        recent_slope(empty_history(2), window=2)
