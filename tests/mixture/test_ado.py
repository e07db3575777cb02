"""ADO against its formula in float64."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture import unmeasured
from dcft_jax.mixture.ado import ado
from tests.compiling import OPTIMISED

PRIOR = np.array([0.2, 0.3, 0.5])
LAW = np.array(
    [(1.2, 60.0, 0.5), (0.3, 8.0, 0.3), (2.0, 9.0, 0.25)]
)  # eps, beta, alpha


def losses(tokens, law=LAW):
    eps, beta, alpha = law.T
    return eps + beta * tokens**-alpha


def feedback(tokens, loss_K, name="train_loss_K", observed_K=(True, True, True)):
    shares_K = tokens * np.array([0.5, 0.3, 0.2])
    return replace(
        unmeasured(3),
        tokens_K=jnp.asarray(shares_K, jnp.float32),
        observed_K=jnp.asarray(observed_K),
        **{name: jnp.asarray(loss_K, jnp.float32)},
    )


def clip(share_K, lowest):
    bounded_K = np.maximum(share_K, lowest)
    return bounded_K / bounded_K.sum()


def policies(tokens_T, warmup, min_weight=0.01, power=0.5):
    """The algorithm with the true laws in place of fits."""
    _, beta, alpha = LAW.T
    policy, credit, average = PRIOR, PRIOR, PRIOR
    for t, n in enumerate(tokens_T, start=1):
        credit = 0.9 * credit + 0.1 * policy
        if t > warmup:
            slope = np.maximum(alpha, 0.05) * beta * n**-alpha / n
            share = PRIOR * credit**power * slope
            share = clip(share / share.sum(), min_weight)
            policy = 0.9 * average + 0.1 * share
            average = average + (share - average) / (t + 1)
        yield policy


@pytest.mark.parametrize("name", ["train_loss_K", "val_loss_K"])
def test_updates_on_exact_power_laws_are_the_algorithm(name):
    rule = ado(loss=name.split("_")[0], warmup_updates=5)
    update = jax.jit(rule.update)
    state = rule.init(PRIOR)
    tokens_T = 1e4 * np.arange(1, 31)
    for n, expected in zip(tokens_T, policies(tokens_T, warmup=5), strict=True):
        state = update(feedback(n, losses(n), name), state)
        np.testing.assert_allclose(rule.weights(state), expected, rtol=5e-3)
    assert np.abs(np.asarray(rule.weights(state)) - PRIOR).max() > 0.05


def test_the_exponent_and_the_preference_have_lower_bounds():
    # The third is flat: its loss cannot fall any more.
    law = np.array([(1.2, 60.0, 0.5), (0.3, 8.0, 0.3), (2.0, 0.0, 0.25)])
    rule = ado(warmup_updates=5, policy_smoothing=0.0, min_weight=0.1)
    state = rule.init(PRIOR)
    for n in 1e4 * np.arange(1, 11):
        state = rule.update(feedback(n, losses(n, law)), state)
    share = np.asarray(state.preference_K)
    assert share[2] < 1e-3
    np.testing.assert_allclose(rule.weights(state), clip(share, 0.1), rtol=1e-5)


def test_warmup_keeps_the_prior_and_records():
    rule = ado(warmup_updates=5)
    state = rule.init(PRIOR)
    for n in 1e4 * np.arange(1, 6):
        state = rule.update(feedback(n, losses(n)), state)
        np.testing.assert_allclose(rule.weights(state), PRIOR, rtol=1e-6)
    assert int(state.history.num_entries) == 5


def test_an_ability_without_measurements_keeps_its_preference():
    rule = ado(warmup_updates=5, policy_smoothing=0.0, credit_power=0.0)
    state = rule.init(PRIOR)
    for n in 1e4 * np.arange(1, 11):
        known = feedback(n, losses(n), observed_K=(True, True, False))
        state = rule.update(known, state)
    _, beta, alpha = LAW[:2].T
    share = PRIOR[:2] * alpha * beta * 1e5**-alpha
    expected = [*(0.5 * share / share.sum()), 0.5]
    np.testing.assert_allclose(rule.weights(state), expected, rtol=5e-3)


def test_an_update_that_measured_nothing_is_none():
    rule = ado()
    state = rule.update(feedback(1e4, losses(1e4)), rule.init(PRIOR))
    after = rule.update(feedback(2e4, losses(2e4), observed_K=(False,) * 3), state)
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_broken_measurements_leave_a_policy_on_the_simplex():
    rule = ado()
    rng = np.random.default_rng(0)
    loss_TK = 2.0 + rng.standard_normal((2000, 3)) * 10.0 ** rng.uniform(
        -3, 38, (2000, 1)
    )
    loss_TK[::3, 1], loss_TK[::5] = np.nan, 0.0
    loss_TK = jnp.asarray(np.clip(loss_TK, -3e38, 3e38), jnp.float32)

    def one(state, loss_K):
        tokens = 1e9 * (state.num_updates + 1)
        known = feedback(tokens, loss_K)
        state = rule.update(known, state)
        return state, rule.weights(state)

    run = jax.jit(lambda s, x: jax.lax.scan(one, s, x), compiler_options=OPTIMISED)
    state, path = run(rule.init(PRIOR), loss_TK)
    assert np.all(np.asarray(path) > 1e-3)
    np.testing.assert_allclose(path.sum(axis=1), 1, atol=1e-5)
    assert int(state.num_updates) == 2000


def test_no_buffer_twice():
    leaves = jax.tree.leaves(ado().init(jnp.asarray(PRIOR, jnp.float32)))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "test"},
        {"warmup_updates": -1},
        {"credit_power": 1.5},
        {"credit_smoothing": 1.0},
        {"policy_smoothing": -0.1},
        {"min_weight": -0.1},
        {"min_exponent": float("inf")},
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match=r"mixture\." + next(iter(options))):
        ado(**options)


def test_a_lower_bound_that_leaves_nothing_to_choose():
    with pytest.raises(ValueError, match=r"mixture\.min_weight"):
        ado(min_weight=0.34).init(PRIOR)
