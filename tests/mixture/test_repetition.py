"""Components, epochs, and caps on them in runs that are simulated slot by slot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dcft_jax.mixture import (
    ability_sums,
    allocate,
    cap_repetition,
    component_weights,
    components,
    epochs,
    max_weights,
    row_budgets,
)

jitted_cap = jax.jit(
    cap_repetition, static_argnames=("num_slots", "rows_per_slot", "margin")
)

# ------------------------------------------------------------- components

SIZES = np.array([[5, 3, 0], [7, 0, 0], [1, 2, 4]])


def test_components_are_the_tiers_that_exist():
    ability_C, tier_C = components(SIZES)
    np.testing.assert_array_equal(ability_C, [0, 0, 1, 2, 2, 2])
    np.testing.assert_array_equal(tier_C, [0, 1, 0, 0, 1, 2])
    weights_K, share_KT = jnp.array([0.5, 0.2, 0.3]), SIZES / SIZES.sum(1)[:, None]
    weights_C = component_weights(weights_K, share_KT, ability_C, tier_C)
    np.testing.assert_allclose(weights_C[:3], [0.5 * 5 / 8, 0.5 * 3 / 8, 0.2])
    np.testing.assert_allclose(ability_sums(weights_C, ability_C, 3), weights_K)
    rows_K = ability_sums(jnp.arange(6), ability_C, 3)
    np.testing.assert_array_equal(rows_K, [1, 2, 12])
    assert rows_K.dtype == jnp.int32


def test_one_tier_each_is_the_list_of_abilities():
    ability_C, tier_C = components([[5, 0], [7, 0]])
    np.testing.assert_array_equal(ability_C, [0, 1])
    weights_K = jnp.array([0.3, 0.7])
    share_KT = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    weights_C = component_weights(weights_K, share_KT, ability_C, tier_C)
    np.testing.assert_array_equal(weights_C, weights_K)


def test_epochs_and_budgets():
    np.testing.assert_allclose(
        epochs(jnp.array([5, 30]), jnp.array([10, 20])), [0.5, 1.5]
    )
    budgets = row_budgets(np.array([10, 10, 3, 10**9]), np.array([2, 0, 0.1, 9]))
    np.testing.assert_array_equal(budgets, [20, 2**31 - 1, 1, 2**31 - 1])
    assert budgets.dtype == np.int32


# ------------------------------------------------------------------- caps


def simulate(budget_C, weights_of_step, num_steps, slots, rows, every=1, margin=None):
    """Consumed rows and `extra` of every step of a run."""
    size = len(budget_C)
    consumed, credit, history = np.zeros(size, np.int32), np.zeros(size, np.float32), []
    for step in range(num_steps):
        if step % every == 0:
            weights, extra = jitted_cap(
                jnp.asarray(weights_of_step(step), jnp.float32),
                budget_C,
                consumed,
                credit,
                num_steps - step,
                num_slots=slots,
                rows_per_slot=rows,
                margin=margin,
            )
        counts, credit = allocate(np.asarray(weights), credit, slots)
        consumed = consumed + (counts * rows).astype(np.int32)
        history.append((consumed, float(extra)))
    return history


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    size=st.sampled_from([2, 3, 5]),
    every=st.sampled_from([1, 7]),
    peaked=st.booleans(),
)
def test_no_cap_is_ever_exceeded(seed, size, every, peaked):
    """Weights that jump about, and budgets with little to spare."""
    rng = np.random.default_rng(seed)
    num_steps, slots, rows = 60, 4, 3
    reserve = rows * (size - 1) / 2
    total = num_steps * slots * rows
    part = rng.dirichlet(np.ones(size)) * total * rng.uniform(1.0, 1.3)
    budget = np.ceil(part + reserve).astype(np.int32)

    def weights(step):
        return rng.dirichlet(np.full(size, 0.1 if peaked else 3.0))

    for consumed, extra in simulate(budget, weights, num_steps, slots, rows, every):
        assert np.all(consumed <= budget)
        assert extra <= 1e-5
    assert consumed.sum() == total


def test_the_test_above_fails_without_caps():
    budget = np.array([100, 10**6], np.int32)
    history = simulate(budget * 100, lambda step: [0.9, 0.1], 60, 4, 3)
    assert history[-1][0][0] > budget[0]


def test_a_small_component_is_spread_over_the_whole_run():
    budget = row_budgets(np.array([30, 10_000]), np.array([2.0, 0.0]))
    history = simulate(budget, lambda step: [0.5, 0.5], 100, 4, 1, margin=1.0)
    consumed = np.array([c[0] for c, _ in history])
    assert 57 <= consumed[-1] <= 60
    np.testing.assert_allclose(consumed, np.linspace(0.6, 60, 100), atol=2)


def test_weights_far_from_their_caps_come_back_unchanged():
    weights = jnp.array([0.2, 0.3, 0.5])
    budget = row_budgets(np.array([10, 500, 900]), np.array([0.0, 3.0, 2.0]))
    args = (budget, np.array([9, 8, 7]), np.zeros(3, np.float32), 10)
    capped, extra = jitted_cap(weights, *args, num_slots=4, rows_per_slot=2)
    np.testing.assert_array_equal(capped, weights)
    assert extra == 0.0


def test_what_a_capped_component_gives_up_keeps_the_ratios_of_the_others():
    weights = jnp.array([0.6, 0.1, 0.3])
    budget = np.array([20, 10**6, 10**6], np.int32)
    zeros = np.zeros(3, np.int32)
    args = dict(num_slots=4, rows_per_slot=1, margin=0.0)
    limits = max_weights(jnp.asarray(budget), zeros, zeros, 10, **args)
    np.testing.assert_allclose(limits[0], 0.5)
    capped, _ = jitted_cap(weights, budget, zeros, zeros * 1.0, 10, **args)
    np.testing.assert_allclose(capped, [0.5, 0.125, 0.375], rtol=1e-5)


def test_budgets_that_cannot_be_kept_are_raised_alike_and_said_so():
    """240 rows are to be trained on and 120 allowed: everything twice as often."""
    budget = np.array([20, 40, 60], np.int32)
    rng = np.random.default_rng(0)

    def weights(step):
        return rng.dirichlet(np.ones(3))

    history = simulate(budget, weights, 60, 4, 1, margin=0.0)
    final, _ = history[-1]
    np.testing.assert_allclose(final / budget, 2.0, atol=0.06)
    extras = np.array([extra for _, extra in history])
    np.testing.assert_allclose(extras[:50], 1.0, atol=0.05)


@settings(deadline=None, max_examples=60)
@example(seed=850, size=2)  # far beyond the budgets, they nearly cancel
@given(seed=st.integers(0, 10_000), size=st.sampled_from([1, 2, 6]))
def test_always_on_the_simplex_and_permutes(seed, size):
    """Also with spent, tiny and unlimited budgets, and at the end of the run."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(size, 0.3)).astype(np.float32)
    budget = rng.choice([1, 7, 10**4, 2**31 - 1], size).astype(np.int32)
    consumed = rng.choice([0, 5, 10**4, 2**31 - 1], size).astype(np.int32)
    credit = rng.uniform(-1, 1, size).astype(np.float32)
    steps_left = int(rng.choice([0, 1, 100, 10**6]))
    args = dict(num_slots=4, rows_per_slot=2)
    capped, extra = jitted_cap(weights, budget, consumed, credit, steps_left, **args)
    np.testing.assert_allclose(capped.sum(), 1.0, atol=1e-5)
    assert np.all(np.isfinite(capped)) and np.all(capped >= 0) and extra >= 0
    p = rng.permutation(size)
    permuted, again = jitted_cap(
        weights[p], budget[p], consumed[p], credit[p], steps_left, **args
    )
    np.testing.assert_allclose(permuted, capped[p], atol=1e-5)
    np.testing.assert_allclose(again, extra, rtol=1e-4)
    if extra == 0.0:
        limits = max_weights(budget, consumed, credit, steps_left, **args)
        assert np.all(capped <= limits + 1e-5)


@pytest.mark.parametrize("spent", [0, 10, 20])
def test_the_largest_weight_uses_the_budget_up(spent):
    """Constant weight at the limit, no margin and no rounding: exactly the rest."""
    budget = np.array([20], np.int32)
    (limit,) = max_weights(
        budget, np.array([spent], np.int32), np.array([0.5]), 5, 4, 2, margin=0.0
    )
    np.testing.assert_allclose(limit * 5 * 4, max((20 - spent) / 2 - 0.5, 0), rtol=1e-6)
