"""mSFT: the search of its paper, written out over whole roll-outs."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture import RULES, unmeasured

PRIOR = np.array([0.5, 0.3, 0.2])


def feedback(loss, step=0, stderr=0.0):
    loss = np.asarray(loss, np.float32)
    return replace(
        unmeasured(len(loss), step),
        val_loss_K=jnp.asarray(loss),
        rise_stderr_K=jnp.full(len(loss), stderr, jnp.float32),
        observed_K=jnp.asarray(np.isfinite(loss)),
    )


def run(rule, losses_TK, first_step=0, state=None, prior=PRIOR, stderr=0.0):
    """One update every 10 steps."""
    state = rule.init(prior) if state is None else state
    for t, loss in enumerate(losses_TK):
        step = first_step + 10 * t
        state = jax.jit(rule.update)(feedback(loss, step, stderr), state)
    return state


def valley(best, length=5):
    """Losses that are lowest at row `best` of a roll-out."""
    return 1 + 0.1 * np.abs(np.arange(length) - best)


def test_excludes_the_earliest_and_goes_back_to_its_best():
    rule = RULES["msft"]()
    losses = np.stack([valley(3), valley(1), valley(4)], axis=1)
    state = run(rule, losses[:4])
    np.testing.assert_allclose(rule.weights(state), PRIOR, rtol=1e-6)
    assert rule.rollback(state) == -1
    state = run(rule, losses[4:], 40, state)
    np.testing.assert_allclose(rule.weights(state), np.array([5, 0, 2]) / 7, rtol=1e-6)
    assert rule.weights(state)[1] == 0
    assert rule.rollback(state) == 10
    # The request is for this update only, and the search goes on from row 1.
    state = run(rule, losses[2:3], 50, state)
    assert rule.rollback(state) == -1


def test_the_next_roll_out_begins_with_the_row_that_was_gone_back_to():
    """Ability 0 only gets worse from there: its best is the beginning itself."""
    rule = RULES["msft"]()
    losses = np.stack([valley(3), valley(1), valley(4)], axis=1)
    state = run(rule, losses)
    start = losses[1]
    worse = start + np.outer(np.arange(1, 5), [0.1, 0.0, -0.1])
    state = run(rule, worse[:3], 50, state)
    assert rule.weights(state)[0] > 0
    state = run(rule, worse[3:], 80, state)
    np.testing.assert_array_equal(rule.weights(state), [0, 0, 1])
    assert rule.rollback(state) == 10


def test_without_rollback_training_goes_on_from_here():
    rule = RULES["msft"](rollback=False)
    losses = np.stack([valley(3), valley(1), valley(4)], axis=1)
    state = run(rule, losses)
    assert rule.rollback is None
    assert rule.weights(state)[1] == 0
    # From the last row (0: 1.1) a fall to 1.05 is progress, though 1.0 was seen.
    falling = losses[-1] - np.outer(np.arange(1, 5), [0.0125, 0.0, 0.05])
    np.testing.assert_array_equal(
        rule.weights(run(rule, falling, 50, state)), rule.weights(state)
    )


def test_no_overfitting_no_exclusion():
    rule = RULES["msft"]()
    losses = 3 - 0.1 * np.arange(21)[:, None] * np.ones(3)
    state = run(rule, losses)
    np.testing.assert_allclose(rule.weights(state), PRIOR, rtol=1e-6)
    assert rule.rollback(state) == -1


def test_the_last_ability_stays():
    rule = RULES["msft"]()
    state = run(rule, 1 + 0.1 * np.arange(40)[:, None] * np.array([1.0, 2.0, 3.0]))
    # The first roll-out excludes the one that rose most, and so on.
    np.testing.assert_array_equal(rule.weights(state), [1, 0, 0])


def test_of_two_with_the_same_best_the_one_that_rose_more_goes():
    rule = RULES["msft"]()
    losses = np.stack([valley(1), 2 * valley(1), valley(4)], axis=1)
    state = run(rule, losses)
    np.testing.assert_array_equal(state.excluded_K, [0, 1, 0])


@pytest.mark.parametrize(("stderr", "excluded"), [(0.29, True), (0.31, False)])
def test_a_rise_within_its_error_is_none(stderr, excluded):
    losses = np.stack([valley(4), valley(1), valley(4)], axis=1)  # rises by 0.3
    state = run(RULES["msft"](), losses, stderr=stderr)
    assert (state.excluded_K[1] == 1) == excluded
    state = run(RULES["msft"](min_rise=0.0), losses, stderr=stderr)
    assert state.excluded_K[1] == 1


def test_a_missing_measurement_is_not_a_peak():
    """An ability that was falling when it was last seen does not overfit."""
    losses = np.stack([valley(4), valley(4), valley(4)], axis=1)
    losses[[0, 3, 4], 1] = np.nan
    state = run(RULES["msft"](), losses)
    np.testing.assert_array_equal(state.excluded_K, [0, 0, 0])
    losses = np.stack([valley(4), valley(1), valley(4)], axis=1)
    losses[4, 1] = np.nan  # it was rising before
    state = run(RULES["msft"](), losses)
    np.testing.assert_array_equal(state.excluded_K, [0, 1, 0])


def search_of_the_paper(losses, rollout):
    """Roll out, exclude the earliest peak, go back, again; `losses(active, c)`.

    Compute is counted in evaluations, from where training went on.
    """
    active, position, log = set(range(3)), 0, []
    while len(active) > 1 and len(log) < 8:
        curve = [losses(active, position + c) for c in range(rollout + 1)]
        peak = {k: int(np.argmin([row[k] for row in curve])) for k in active}
        overfit = {k: c for k, c in peak.items() if c < rollout}
        if overfit:
            first = min(overfit, key=lambda k: (overfit[k], k))
            active, position = active - {first}, position + overfit[first]
        else:
            position += rollout
        log.append((sorted(active), position))
    return log


def test_whole_search():
    """Each exclusion delays the peaks of the others, as in figure 3 of the paper."""

    def losses(active, c):
        peaks = np.array([6.0, 2.0, 12.0]) + 1.5 * (3 - len(active))
        return 1 + 0.01 * (c - peaks) ** 2

    rollout = 4
    expected = search_of_the_paper(losses, rollout)
    rule, found, position = RULES["msft"](rollout), [], 0
    state = rule.init(PRIOR)
    active = set(range(3))
    state = rule.update(feedback(losses(active, 0), 0), state)
    while len(found) < len(expected):
        for _ in range(rollout):
            position += 1
            state = rule.update(feedback(losses(active, position), position), state)
        if rule.rollback(state) >= 0:
            position = int(rule.rollback(state))
        active = set(np.flatnonzero(rule.weights(state)))
        found.append((sorted(active), position))
    assert found == expected
    assert len(found[-1][0]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(rollout_updates=0), "mixture.rollout_updates is 0, .*integer >= 1"),
        (dict(min_rise=-1.0), r"mixture.min_rise is -1.0, .*\[0, inf\)"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RULES["msft"](**options)
