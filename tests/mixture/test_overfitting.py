"""Flags: for learning by heart, not for noise, forgetting or harder data."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture import unmeasured
from dcft_jax.mixture.overfitting import held_back, init_overfit, watch

NAN = np.nan
step = jax.jit(watch)


def feedback(rise, train, stderr=0.0, observed=True):
    def one(value):
        return jnp.array([value], jnp.float32)

    return replace(
        unmeasured(1),
        reference_loss_K=one(1.0),
        initial_loss_K=one(2.0),  # 2 % of what there was to learn: 0.02
        rise_K=one(rise),
        rise_stderr_K=one(stderr),
        train_loss_K=one(train),
        observed_K=jnp.array([observed]),
    )


def flags(*rows):
    """After each of the rows (rise, train loss) or feedbacks."""
    state, seen = init_overfit(1), []
    for row in rows:
        given = feedback(*row) if isinstance(row, tuple) else row
        state = step(given, state)
        seen.append(bool(state.flagged_K[0]))
    return seen


BEST = (-0.1, 1.5)  # a new best evaluation, and the train loss then


def test_two_rises_in_a_row_flag_and_a_recovery_unflags():
    assert flags(BEST, (0.1, 1.4), (0.1, 1.3)) == [False, False, True]
    assert flags(BEST, (0.1, 1.4), (0.0, 1.4), (0.1, 1.3)) == [False] * 4
    again = [(0.1, 1.4), (0.1, 1.3), (0.015, 1.3), (0.01, 1.3)]
    assert flags(BEST, *again) == [False, False, True, True, False]


def test_a_small_or_an_uncertain_rise_is_none():
    assert not any(flags(BEST, *[(0.019, 1.3)] * 5))
    assert not any(flags(BEST, *[(0.1, 1.3, 0.051)] * 5))
    assert flags(BEST, *[(0.1, 1.3, 0.03)] * 2)[-1]


def test_the_best_of_many_evaluations_asks_for_more():
    state = step(feedback(*BEST), init_overfit(1))
    for _ in range(500):
        state = step(feedback(0.0, 1.5, 0.01), state)
    # 2 + sqrt(log 500) = 4.5 standard errors.
    for rise, expected in ((0.043, False), (0.047, True)):
        after = state
        for _ in range(2):
            after = step(feedback(rise, 1.5, 0.01), after)
        assert bool(after.flagged_K[0]) is expected


def test_noise_is_not_flagged_in_1e5_updates():
    """The best so far is the best of all: without the correction it flags for ever."""
    rng = np.random.default_rng(0)
    loss = 2.0 + 0.1 * rng.standard_normal((100_000, 3)).astype(np.float32)
    best = np.minimum.accumulate(loss, axis=0)[:-1]
    train = 2.0 + 0.01 * rng.standard_normal(loss.shape).astype(np.float32)

    def one(state, inputs):
        loss_K, best_K, train_K = inputs
        given = replace(
            unmeasured(3),
            reference_loss_K=jnp.ones(3),
            initial_loss_K=jnp.full(3, 2.0),
            rise_K=loss_K - best_K,
            rise_stderr_K=jnp.full(3, 0.1 * 2**0.5),
            train_loss_K=train_K,
            observed_K=jnp.ones(3, bool),
        )
        state = watch(given, state)
        return state, state.flagged_K

    inputs = (loss[1:], best, train[1:])
    _, flagged = jax.jit(lambda x: jax.lax.scan(one, init_overfit(3), x))(inputs)
    assert np.mean(flagged) < 1e-3
    assert np.mean(loss[1:] - best > 2 * 0.1 * 2**0.5) > 0.5  # what 2 errors would do


def test_a_rise_that_train_rows_share_is_no_overfitting():
    assert not any(flags(BEST, *[(0.4, 1.9)] * 5))  # forgotten, or harder data
    assert not any(flags(BEST, *[(0.4, 1.7)] * 5))  # half of it
    # It began as overfitting, and then the others took what it had learnt.
    assert flags(BEST, (0.4, 1.4), (0.4, 1.4), (0.6, 2.0))[-2:] == [True, False]


def test_only_what_train_rows_do_not_share_counts():
    """After harder data: most of a rise is luck of the best and a real rise of both."""
    assert not any(flags(BEST, *[(0.11, 1.55, 0.025)] * 5))
    assert flags(BEST, *[(0.15, 1.55, 0.025)] * 2)[-1]


def test_without_information_the_state_stays():
    start = [BEST, (0.1, 1.4)]
    nothing = feedback(0.1, 1.4, observed=False)
    assert flags(*start, nothing, (0.1, 1.4)) == [False, False, False, True]
    for missing in [(NAN, 1.4), (0.1, NAN), (0.1, 1.4, NAN)]:
        assert flags(*start, missing) == [False] * 3
        assert flags(*start, missing, (0.1, 1.4))[-1]
    flagged = [*start, (0.1, 1.4)]
    assert flags(*flagged, (NAN, NAN), (0.1, NAN)) == [False, False, True, True, True]
    assert not flags(*flagged, (0.0, NAN))[-1]  # not trained on, and as good as ever
    assert not any(flags(*[(0.1, NAN)] * 5))


def test_the_first_known_train_loss_stands_in_for_the_best():
    """An ability that only ever gets worse."""
    assert flags((NAN, NAN), (0.1, 1.5), (0.2, 1.4), (0.3, 1.3))[-1]


@pytest.mark.parametrize(
    ("flagged", "most", "expected"),
    [
        ([True, False, False], 0.0, [0.0, 0.375, 0.625]),
        ([True, False, False], 0.02, [0.02, 0.3675, 0.6125]),
        ([True, False, False], 0.9, [0.2, 0.3, 0.5]),
        ([True, True, True], 0.0, [0.2, 0.3, 0.5]),
        ([False, False, False], 0.0, [0.2, 0.3, 0.5]),
    ],
)
def test_held_back_weights_go_to_the_others(flagged, most, expected):
    weights = jnp.array([0.2, 0.3, 0.5], jnp.float32)
    kept = jnp.where(jnp.array(flagged), 0.0, 1.0)
    held = held_back(weights, kept, most)
    np.testing.assert_allclose(held, expected, rtol=1e-6)


def test_what_is_kept_halves_with_the_flag_and_doubles_without():
    state, kept = init_overfit(1), []
    for row in [BEST, (0.1, 1.4), *[(0.1, 1.3)] * 3, *[(0.0, 1.3)] * 4]:
        state = step(feedback(*row), state)
        kept.append(float(state.kept_K[0]))
    assert kept == [1, 1, 0.5, 0.25, 0.125, 0.25, 0.5, 1, 1]
    half = held_back(jnp.array([0.2, 0.3, 0.5]), jnp.array([0.5, 1.0, 1.0]), 0.05)
    np.testing.assert_allclose(half, [0.1, 0.3375, 0.5625], rtol=1e-6)
    bottom = held_back(jnp.array([0.2, 0.3, 0.5]), jnp.array([0.1, 1.0, 1.0]), 0.05)
    assert float(bottom[0]) == pytest.approx(0.05)
