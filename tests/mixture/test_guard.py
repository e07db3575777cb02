"""The comparison with the prior: engages, releases, and is not fooled by noise."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax.mixture import mirror_descent, unmeasured
from dcft_jax.mixture.guard import compare, init_guard

K = 3
STDERR = 0.01


def stacked(loss_UK, static_UK=None):
    """Feedback of all updates along the first axis, 100 steps apart."""
    loss_UK = jnp.asarray(loss_UK, jnp.float32)
    num_updates = len(loss_UK)

    def one(update, loss_K, static_K):
        return replace(
            unmeasured(K),
            val_loss_K=loss_K,
            val_loss_stderr_K=jnp.full(K, STDERR),
            reference_loss_K=jnp.full(K, 1.0),
            initial_loss_K=jnp.full(K, 3.0),
            static_loss_K=static_K,
            static_stderr_K=jnp.full(K, STDERR),
            observed_K=jnp.ones(K, bool),
            step=100 * (update + 1),
        )

    static_UK = np.full((num_updates, K), np.nan) if static_UK is None else static_UK
    static_UK = jnp.asarray(static_UK, jnp.float32)
    return jax.vmap(one)(jnp.arange(num_updates), loss_UK, static_UK)


@jax.jit
def levels(feedback, warmup, threshold=3.0):
    def one(state, inputs):
        update, given = inputs
        state = compare(given, state, update < warmup, threshold)
        return state, (state.level, state.excess)

    updates = jnp.arange(len(feedback.step))
    return jax.lax.scan(one, init_guard(K, 32), (updates, feedback))[1]


def power_law(num_updates=80):
    step = 100.0 * np.arange(1, num_updates + 1)
    return np.tile((1.2 + 30.0 * step**-0.6)[:, None], (1, K))


def test_levels_rise_by_a_half_and_sink_by_a_quarter():
    static = np.full((12, K), 2.0)
    loss = static.copy()
    loss[4:7] += 0.1  # 5 % of what there was to learn
    level, excess = levels(stacked(loss, static), 2)
    expected = [0, 0, 0, 0, 0.5, 1, 1, 0.75, 0.5, 0.25, 0, 0]
    np.testing.assert_allclose(level, expected)
    # The mean over three abilities, each with its error.
    np.testing.assert_allclose(excess[4], 0.1 / (STDERR / K**0.5), rtol=1e-3)
    assert np.isnan(excess[1]) and excess[3] == 0  # at the prior nothing is compared


def test_what_is_certain_but_small_or_large_but_uncertain_does_not_count():
    static = np.full((12, K), 2.0)
    level, _ = levels(stacked(static + 0.019, static), 0)  # below 1 % of the range
    assert np.all(level == 0)
    one_bad = static + np.array([0.1, -0.05, -0.05])  # the mean is what counts
    assert np.all(levels(stacked(one_bad, static), 0)[0] == 0)
    unsure = replace(
        stacked(static + 0.1, static), static_stderr_K=jnp.full((12, K), 1.0)
    )
    assert np.all(levels(unsure, 0)[0] == 0)


def test_without_a_static_run_the_warmup_is_extrapolated():
    warmup, rng = 24, np.random.default_rng(0)
    law = power_law() + 0.003 * rng.standard_normal((80, K))
    level, _ = levels(stacked(law), warmup)
    assert np.mean(level > 0) < 0.05  # a run that goes on as it did
    worse = law.copy()
    worse[40:60] += 0.15
    level, _ = levels(stacked(worse), warmup)
    assert np.all(level[42:60] == 1) and np.all(level[65:] == 0)
    too_short, _ = levels(stacked(worse), 4)  # no law from so few
    assert np.all(too_short == 0)


def test_an_update_without_measurement_keeps_the_level():
    static = np.full((12, K), 2.0)
    given = stacked(static + 0.1, static)
    seen_U1 = (jnp.arange(12) < 2)[:, None]
    level, excess = levels(replace(given, observed_K=given.observed_K & seen_U1), 0)
    np.testing.assert_allclose(level, [0.5] + 11 * [1])
    assert np.all(np.isfinite(excess))


def test_a_full_level_is_the_prior_and_half_is_half_way():
    rule = mirror_descent(floor=0.0)
    prior = np.array([0.2, 0.3, 0.5], np.float32)
    moved = np.array([0.6, 0.3, 0.1])
    state = replace(rule.init(prior), log_weights_K=jnp.log(jnp.float32(moved)))

    def at(level):
        guard = replace(state.guard, level=jnp.float32(level))
        return np.asarray(rule.weights(replace(state, guard=guard)))

    np.testing.assert_allclose(at(0.0), moved, rtol=1e-5)
    np.testing.assert_allclose(at(1.0), prior, rtol=1e-5)
    middle = np.sqrt(moved * prior)
    np.testing.assert_allclose(at(0.5), middle / middle.sum(), rtol=1e-5)
