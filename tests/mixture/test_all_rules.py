"""What every rule of `RULES` keeps, whatever it does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture import RULES, unmeasured
from dcft_jax.mixture.rule import NEEDS
from tests.compiling import OPTIMISED
from tests.mixture.every_rule import (
    NUM_ABILITIES,
    NUM_STEPS,
    PRIOR,
    build,
    changed,
    jitted,
    measured,
    permuted,
)

# `replay` needs a run: see test_replay.py.
every_rule = pytest.mark.parametrize("name", sorted(RULES.keys() - {"replay"}))

# Noise, or a turn in a sweep, belongs to a place in the order, not to an ability.
ORDERED = {"random_walk", "aioli"}
# A robust fit of few noisy losses makes much of rounding.
FITTED = {"ado"}
# Formulas in which a constant added to all losses does not cancel: CoBa takes ratios of
# losses, DynamixSFT relative decreases, and Skill-It adds up more losses for an ability
# that helps more others; GRAPE and ADO read logarithms of losses.
LEVEL_MATTERS = {"coba", "dynamix_sft", "skill_it", "grape", "ado"}
# The mixing law of an ability that is never measured is unknown, and is left out.
LEFT_OUT = {"aioli"}
# The loop counts these, whatever was measured.
COUNTED = ("tokens_K", "epochs_K")
# These do not look at measurements.
BLIND = {"static", "proportional", "temperature", "dmt", "random_walk"}
# A weight that became small needs as many updates to come back, or never does; ODM
# reacts less with every update, and Aioli at the end of a sweep only.
SLOW_TO_COME_BACK = {"msft", "velocitune", "auto_mix_align", "odm", "doge", "aioli"}

LOSSES = (
    "val_loss_K",
    "reference_loss_K",
    "initial_loss_K",
    "train_loss_K",
    "virtual_before_K",
    "virtual_after_K",
)


def feedbacks(number, seed=0):
    rng = np.random.default_rng(seed)
    steps = np.linspace(0, NUM_STEPS, number).astype(int)
    return [measured(rng, step) for step in steps]


def run(rule, sequence, prior=PRIOR):
    """The states after each update."""
    state, states = rule.init(prior), []
    for feedback in sequence:
        state = rule.update(feedback, state)
        states.append(state)
    return states


def path(rule, sequence, prior=PRIOR):
    return np.array([rule.weights(state) for state in run(rule, sequence, prior)])


def leaves(state):
    return jax.tree.leaves(state)


@every_rule
def test_weights_are_on_the_simplex(name):
    rule = jitted(name)
    first = np.asarray(rule.weights(rule.init(PRIOR)))
    weights = np.vstack([first, path(rule, feedbacks(20))])
    assert weights.dtype == np.float32 and weights.shape == (21, NUM_ABILITIES)
    assert np.all(weights >= 0)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)


@every_rule
def test_measurements_move_the_weights_unless_the_rule_is_blind(name):
    one, other = (path(jitted(name), feedbacks(20, seed)) for seed in (0, 1))
    assert (np.abs(one[-1] - other[-1]).max() < 1e-7) == (name in BLIND)


@every_rule
def test_needs_are_some_of_those_the_loop_can_measure(name):
    assert jitted(name).needs <= set(NEEDS)


@every_rule
def test_order_of_the_abilities_does_not_matter(name):
    order = [3, 0, 4, 2, 1]
    sequence = feedbacks(20)
    straight = path(jitted(name), sequence)[:, order]
    swapped = [permuted(feedback, order) for feedback in sequence]
    other = path(jitted(name, tuple(order)), swapped, PRIOR[order])
    if name in ORDERED:
        assert np.abs(straight - other).max() > 1e-3
    else:
        atol = 2e-3 if name in FITTED else 2e-5
        np.testing.assert_allclose(straight, other, atol=atol)


@every_rule
def test_a_constant_added_to_all_losses(name):
    def add(key, array):
        return array + 0.5 if key in LOSSES else array

    sequence = feedbacks(20)
    straight = path(jitted(name), sequence)
    raised = path(jitted(name), [changed(feedback, add) for feedback in sequence])
    if name in LEVEL_MATTERS:
        assert np.abs(straight - raised).max() > 1e-4
    else:
        np.testing.assert_allclose(straight, raised, atol=1e-4)


@every_rule
def test_unmeasured_feedback_changes_nothing(name):
    rule = jitted(name)
    states = run(rule, feedbacks(9))
    # A request to roll back is for one update only.
    calm = [s for s in states if rule.rollback is None or rule.rollback(s) < 0]
    for state in [rule.init(PRIOR), *calm]:
        after = rule.update(unmeasured(NUM_ABILITIES), state)
        for was, now in zip(leaves(state), leaves(after), strict=True):
            np.testing.assert_array_equal(was, now)


@every_rule
@pytest.mark.parametrize("garbage", [np.nan, np.inf, 0.0, -1e30])
def test_nothing_is_read_of_an_ability_that_is_not_observed(name, garbage):
    """Not its losses, and not zeros in their place."""

    def spoil(key, array):
        if key == "observed_K" or key in COUNTED:
            return hide(key, array)
        return hide(key, array) if key.endswith("KK") else array.at[2].set(garbage)

    def hide(key, array):
        if key == "observed_K":
            return array.at[2].set(False)
        if key in COUNTED:
            return array
        array = array.at[2].set(jnp.nan)
        return array.at[:, 2].set(jnp.nan) if key.endswith("KK") else array

    def swap(change):
        sequence = feedbacks(12)
        half = [changed(feedback, change) for feedback in sequence[4:9]]
        return path(jitted(name), [*sequence[:4], *half, *sequence[9:]])

    spoiled = swap(spoil)
    assert np.all(np.isfinite(spoiled))
    np.testing.assert_array_equal(spoiled, swap(hide))


@every_rule
@pytest.mark.parametrize("missing", [0, 2])
def test_an_ability_that_is_never_measured_is_finite_and_not_starved(name, missing):
    def hide(key, array):
        if key == "observed_K":
            return array.at[missing].set(False)
        return array if key.endswith("KK") else array.at[missing].set(jnp.nan)

    weights = path(
        jitted(name), [changed(feedback, hide) for feedback in feedbacks(20)]
    )
    assert np.all(np.isfinite(weights))
    # One of the others is worth less than the one nothing is known about.
    others = np.delete(weights[-1] / PRIOR, missing)
    assert (
        name in BLIND | LEFT_OUT or weights[-1, missing] / PRIOR[missing] > others.min()
    )


@every_rule
def test_jit_equals_eager(name):
    np.testing.assert_allclose(
        path(build(name), feedbacks(8)), path(jitted(name), feedbacks(8)), atol=1e-6
    )


@every_rule
def test_the_state_is_arrays_that_can_be_donated(name):
    rule = jitted(name)
    update = jax.jit(rule.update, donate_argnums=1)
    kept = run(rule, feedbacks(6))[-1]
    state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), rule.init(PRIOR))
    for feedback in feedbacks(6):
        pointers = [leaf.unsafe_buffer_pointer() for leaf in leaves(state)]
        assert len(set(pointers)) == len(pointers)
        state = update(feedback, state)
    for one, other in zip(leaves(state), leaves(kept), strict=True):
        assert one.dtype in (jnp.float32, jnp.int32, jnp.bool_)
        np.testing.assert_array_equal(one, other)


@every_rule
def test_a_new_state_has_no_shared_buffers(name):
    state = jitted(name).init(PRIOR)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves(state))
    pointers = [leaf.unsafe_buffer_pointer() for leaf in leaves(state)]
    assert len(set(pointers)) == len(pointers)


@every_rule
def test_donating_the_state_leaves_the_prior(name):
    rule, prior = jitted(name), jnp.asarray(PRIOR)
    jax.jit(rule.update, donate_argnums=1)(feedbacks(1)[0], rule.init(prior))
    np.testing.assert_array_equal(prior, PRIOR)


@every_rule
def test_rules_resume_bit_exactly_from_their_flattened_state(name):
    rule, sequence = jitted(name), feedbacks(12)
    states = run(rule, sequence)
    flat, structure = jax.tree.flatten(states[4])
    state = jax.tree.unflatten(structure, [np.asarray(leaf) for leaf in flat])
    assert jax.tree.structure(state) == jax.tree.structure(states[4])
    for feedback in sequence[5:]:
        state = rule.update(feedback, state)
    for one, other in zip(leaves(state), leaves(states[-1]), strict=True):
        np.testing.assert_array_equal(one, other)


@every_rule
def test_an_interval_and_a_rollback_are_steps(name):
    rule = jitted(name)
    for state in run(rule, feedbacks(20)):
        for steps, lowest, most in (
            (rule.interval, 1, 1000),
            (rule.rollback, -1, NUM_STEPS),
        ):
            if steps is not None:
                assert steps(state).dtype == jnp.int32
                assert lowest <= steps(state) <= most


EXTREMES = (0.0, 1.0, -1.0, 1e30, -1e30, 1e-38, np.inf, -np.inf, np.nan)


def adversarial(key):
    """Every number is plausible or one of `EXTREMES`, whoever was observed."""
    template = measured(np.random.default_rng(0), 0)
    keys = jax.random.split(key, len(vars(template)))
    fields = {}
    for (name, value), key in zip(vars(template).items(), keys, strict=True):
        kind, choice, size = jax.random.split(key, 3)
        extreme = jax.random.choice(choice, jnp.array(EXTREMES), value.shape)
        plausible = 3 * jax.random.uniform(size, value.shape)
        wild = jax.random.bernoulli(kind, 0.3, value.shape)
        fields[name] = jnp.where(wild, extreme, plausible)
    observed_K = jax.random.bernoulli(keys[0], 0.7, (NUM_ABILITIES,))
    fields |= {"observed_K": observed_K, "step": template.step}
    return dataclasses.replace(template, **fields)


@pytest.mark.slow
@every_rule
def test_1e5_adversarial_updates(name):
    # ADO fits a law at every update, 10 ms each.
    rule, number = build(name), 2_000 if name in FITTED else 100_000
    pool = jax.jit(jax.vmap(adversarial))(jax.random.split(jax.random.key(0), 5000))

    def one(state, numbered):
        drawn, step = numbered
        feedback = jax.tree.map(lambda array: array[drawn], pool)
        state = rule.update(dataclasses.replace(feedback, step=step), state)
        weights_K = rule.weights(state)
        sound = jnp.all(weights_K >= 0) & (jnp.abs(jnp.sum(weights_K) - 1) < 1e-5)
        # nan is "not measured" in a history; weights and inf tell what broke.
        bounded = [~jnp.any(jnp.isinf(leaf)) for leaf in leaves(state)]
        return state, sound & jnp.all(jnp.stack(bounded))

    drawn = jax.random.randint(jax.random.key(1), (number,), 0, 5000)
    numbered = (drawn, jnp.arange(number, dtype=jnp.int32))
    start = rule.init(PRIOR)
    run = jax.jit(
        lambda: jax.lax.scan(one, start, numbered), compiler_options=OPTIMISED
    )
    state, sound = run()
    assert np.all(sound)
    if name not in BLIND | SLOW_TO_COME_BACK:  # it still listens
        two = [run_from(jitted(name), state, feedbacks(30, seed)) for seed in (0, 1)]
        assert np.abs(two[0] - two[1]).max() > 1e-5


def run_from(rule, state, sequence):
    for feedback in sequence:
        state = rule.update(feedback, state)
    return np.asarray(rule.weights(state))
