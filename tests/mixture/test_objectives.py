"""Importances and multipliers, one update at a time."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture import mirror_descent, unmeasured
from dcft_jax.mixture.objectives import (
    DUAL_LEAST,
    DUAL_MOST,
    constrained_score,
    enforce,
    focus,
    init_objective,
)

NAN = np.nan
step_focus = jax.jit(focus)
step_enforce = jax.jit(enforce)


def feedback(val_K, reference_K=0.0, initial_K=1.0, observed_K=None):
    val_K = jnp.asarray(val_K, jnp.float32)
    return replace(
        unmeasured(len(val_K)),
        val_loss_K=val_K,
        val_loss_stderr_K=jnp.zeros_like(val_K),
        reference_loss_K=jnp.broadcast_to(jnp.float32(reference_K), val_K.shape),
        initial_loss_K=jnp.broadcast_to(jnp.float32(initial_K), val_K.shape),
        observed_K=jnp.ones(len(val_K), bool)
        if observed_K is None
        else jnp.asarray(observed_K),
    )


def importance(given, num_updates=1, step_size=0.5, anchor=0.5):
    state = init_objective(len(given.val_loss_K))
    for _ in range(num_updates):
        state = step_focus(given, state, step_size, anchor)
    return np.exp(state.log_importance_K)


def softmax(x):
    x = np.exp(x - x.max())
    return x / x.sum()


def test_focus_is_the_formula_and_ends_at_its_fixed_point():
    gap = np.array([0.8, 0.4, 0.2])
    np.testing.assert_allclose(
        importance(feedback(gap)), softmax(0.5 * gap / 0.8), rtol=1e-5
    )
    np.testing.assert_allclose(
        importance(feedback(gap), 100), softmax(gap / 0.8 / 0.5), rtol=1e-4
    )


def test_focus_does_not_fade_as_all_gaps_shrink_but_noise_is_not_blown_up():
    gap = np.array([0.8, 0.4, 0.2])
    wide, narrow = (importance(feedback(scale * gap), 100) for scale in (1.0, 0.25))
    np.testing.assert_allclose(wide, narrow, rtol=1e-4)
    nothing = importance(feedback(0.001 * gap), 100)
    np.testing.assert_allclose(nothing, 1 / 3, rtol=0.02)


def test_an_unknown_gap_counts_as_the_mean():
    given = feedback([0.8, 0.4, 0.0], reference_K=[0.0, 0.0, NAN])
    known = importance(feedback([0.8, 0.4, 0.6]))
    np.testing.assert_allclose(importance(given), known, rtol=1e-5)
    nobody = feedback([0.8, 0.4], reference_K=NAN)
    np.testing.assert_allclose(importance(nobody, 20), 0.5)


def multiplier(val, num_updates=1, margin=0.1, **changes):
    given, state = feedback([val], **changes), init_objective(1)
    for _ in range(num_updates):
        state = step_enforce(given, state, jnp.float32([margin]))
    return float(jnp.exp(state.log_dual_K[0]))


def test_the_multiplier_follows_the_violation():
    # Bound: reference 1 + 0.1; what there was to learn: 2.
    given = dict(reference_K=1.0, initial_K=3.0)
    np.testing.assert_allclose(multiplier(1.1, **given), 0.5, rtol=1e-5)
    for val in (1.2, 1.0):
        expected = 0.5 * np.exp(4 * (val - 1.1) / 2)
        np.testing.assert_allclose(multiplier(val, **given), expected, rtol=1e-5)
    np.testing.assert_allclose(multiplier(9.0, 50, **given), DUAL_MOST, rtol=1e-5)
    np.testing.assert_allclose(multiplier(0.0, 50, **given), DUAL_LEAST, rtol=1e-5)


def test_the_bound_is_the_initial_loss_where_the_reference_is_unknown():
    given = dict(reference_K=NAN, initial_K=2.0)
    np.testing.assert_allclose(multiplier(2.1, **given), 0.5, rtol=1e-5)
    expected = 0.5 * np.exp(4 * 0.2 / 2)
    np.testing.assert_allclose(multiplier(2.3, **given), expected, rtol=1e-5)


def test_a_multiplier_without_information_stays():
    given = dict(reference_K=1.0, initial_K=3.0)
    np.testing.assert_allclose(multiplier(NAN, **given), 0.5, rtol=1e-6)
    unseen = multiplier(9.0, observed_K=[False], **given)
    np.testing.assert_allclose(unseen, 0.5, rtol=1e-6)
    np.testing.assert_allclose(multiplier(9.0, margin=NAN, **given), 0.5, rtol=1e-6)


def test_a_constraint_pulls_by_its_multiplier_and_targets_keep_their_scores():
    state = replace(init_objective(3), log_dual_K=jnp.log(jnp.array([2.0, 0.02, 1.0])))
    margin_K = jnp.array([0.1, 0.1, NAN])
    score = constrained_score(jnp.array([9.0, 9.0, 0.3]), state, margin_K)
    np.testing.assert_allclose(score, [1.5, -0.48, 0.3], rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(objective="best"), "mixture.objective is best, expected one of"),
        (dict(objective="constrained"), "with and abilities without a retain_margin"),
        (
            dict(objective="constrained", retain_margin_K=[0.1, 0.1]),
            "with and abilities without a retain_margin",
        ),
        (dict(retain_margin_K=[0.1, None]), 'expected "constrained" where'),
        (
            dict(objective="constrained", retain_margin_K=[-0.1, None]),
            r"mixture.retain_margin is -0.1, expected in \[0, inf\)",
        ),
        (dict(overfitting="drop"), "mixture.overfitting is drop, expected one of"),
        (dict(guard=-1.0), r"mixture.guard is -1.0, expected in \[0, inf\)"),
    ],
)
def test_bad_options_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        mirror_descent(**fields)


def test_margins_for_another_number_of_abilities_are_refused():
    rule = mirror_descent(objective="constrained", retain_margin_K=[0.1, None])
    with pytest.raises(ValueError, match="retain_margin has 2 entries for 3 abilities"):
        rule.init(np.ones(3) / 3)
