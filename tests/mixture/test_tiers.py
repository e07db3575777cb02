"""Tier rules: closed forms, invariances, and curricula with known answers."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcft_jax.mixture import TIER_RULES, unmeasured_tiers
from dcft_jax.mixture.tier_bandit import bandit
from dcft_jax.mixture.tier_competence import competence, root_schedule

SIZES = np.array([[50, 30, 20], [80, 20, 0], [70, 0, 0]])
SHARES = SIZES / SIZES.sum(axis=1, keepdims=True)
DEFAULTS = {name: make() for name, make in TIER_RULES.items()}


def feedback(step=0, observed=True, **fields):
    """Feedback for abilities with the tiers of `SIZES`, or of the given arrays."""
    arrays = {k: jnp.asarray(v, jnp.float32) for k, v in fields.items()}
    shape = next(iter(arrays.values())).shape if arrays else SIZES.shape
    observed_KT = jnp.broadcast_to(jnp.asarray(observed), shape)
    blank = unmeasured_tiers(*shape, step=step)
    return replace(blank, observed_KT=observed_KT, **arrays)


def mastery_feedback(mastery_KT, step=0, observed=True, stderr=0.0):
    """Losses from 2 to 1, of which a share `mastery_KT` is done."""
    mastery_KT = np.asarray(mastery_KT, np.float32)
    ones_KT = np.ones_like(mastery_KT)
    return feedback(
        step,
        observed,
        val_loss_KT=2 - mastery_KT,
        val_loss_stderr_KT=stderr * ones_KT,
        initial_loss_KT=2 * ones_KT,
        reference_loss_KT=ones_KT,
    )


def progress_feedback(progress_KT, observed=True, stderr=0.0):
    progress_KT = np.asarray(progress_KT, np.float32)
    stderr_KT = np.full_like(progress_KT, stderr)
    return feedback(0, observed, progress_KT=progress_KT, progress_stderr_KT=stderr_KT)


@functools.partial(jax.jit, static_argnums=0)
def run(rule, state, feedbacks):
    """Scans over feedback stacked along the first axis; also returns the path."""

    def one(state, feedback):
        state = rule.update(feedback, state)
        return state, rule.shares(state)

    return jax.lax.scan(one, state, feedbacks)


def shares_after(rule, *feedbacks, sizes=SIZES):
    state = rule.init(sizes)
    for one in feedbacks:
        state = rule.update(one, state)
    return np.asarray(rule.shares(state))


def test_static_is_by_size_for_ever():
    rule = TIER_RULES["static"]()
    shares = shares_after(rule, progress_feedback(np.ones((3, 3))))
    np.testing.assert_allclose(shares, SHARES, rtol=1e-6)


# ------------------------------------------------------------- all of them


@pytest.mark.parametrize(
    ("name", "floor"), [("static", 0.0), ("competence", 0.2), ("bandit", 0.0)]
)
def test_adversarial_feedback_for_1e5_updates(name, floor):
    """Huge, tiny, infinite and missing values: on the simplex, above the floor."""
    options = {} if name == "static" else {"floor": floor}
    rule = TIER_RULES[name](**options)
    values = jnp.array([0.0, 1.0, -1.0, 1e30, -1e30, jnp.inf, -jnp.inf, jnp.nan, 1e-30])
    exists_KT = jnp.asarray(SIZES > 0)
    lowest_KT = exists_KT * floor / exists_KT.sum(1, keepdims=True)

    def one(state, key):
        keys = jax.random.split(key, 3)
        pick = jax.random.choice(keys[0], values, (6, 3, 3))
        told = replace(
            unmeasured_tiers(3, 3),
            val_loss_KT=pick[0],
            val_loss_stderr_KT=pick[1],
            initial_loss_KT=pick[2],
            reference_loss_KT=pick[3],
            progress_KT=pick[4],
            progress_stderr_KT=pick[5],
            observed_KT=jax.random.bernoulli(keys[1], 0.8, (3, 3)),
            step=jax.random.randint(keys[2], (), 0, 2**31 - 1) // 10**7,
        )
        state = rule.update(told, state)
        shares = rule.shares(state)
        sound = jnp.all(jnp.isfinite(shares))
        sound &= jnp.all(jnp.abs(shares.sum(1) - 1) < 1e-5)
        sound &= jnp.all(shares >= lowest_KT - 1e-6)
        sound &= jnp.all((shares == 0) | exists_KT)
        sound &= shares[2, 0] == 1
        return state, (sound, shares)

    keys = jax.random.split(jax.random.key(0), 100_000)
    start = rule.init(SIZES)
    state, (sound, path) = jax.jit(lambda: jax.lax.scan(one, start, keys))()
    assert np.all(sound)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    if name != "static":
        assert np.std(path, axis=0)[0].min() > 0.01  # the feedback was heard


@pytest.mark.parametrize("name", sorted(TIER_RULES))
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_abilities_permute_and_do_not_hear_each_other(name, seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 100, (4, 3)) * (rng.random((4, 3)) < 0.8)
    sizes[:, 0] += 1
    rule = DEFAULTS[name]
    losses = rng.uniform(0.5, 2.5, (5, 4, 4, 3))

    def shares(order, change=0.0):
        told = losses + change
        feedbacks = [
            feedback(
                100 * t,
                val_loss_KT=told[t, 0][order],
                initial_loss_KT=2 + 0 * told[t, 0],
                reference_loss_KT=0.5 + 0 * told[t, 0],
                progress_KT=told[t, 1][order] - 1,
                progress_stderr_KT=0.1 * told[t, 2][order],
            )
            for t in range(5)
        ]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *feedbacks)
        return run(rule, rule.init(sizes[order]), stacked)[1][-1]

    plain, order = shares(np.arange(4)), rng.permutation(4)
    np.testing.assert_allclose(shares(order), plain[order], rtol=1e-5, atol=1e-7)
    other = np.zeros((4, 1))
    other[0] = 0.3  # another story about ability 0 only
    np.testing.assert_array_equal(shares(np.arange(4), other)[1:], plain[1:])


@pytest.mark.parametrize("name", sorted(TIER_RULES))
def test_an_ability_without_information_keeps_its_state(name):
    rule = TIER_RULES[name]()
    told = replace(
        mastery_feedback(np.full((3, 3), 0.4)),
        progress_KT=jnp.array([[0.3, 0.1, 0.0]] * 3),
    )
    state = rule.update(told, rule.init(SIZES))
    for blank in (
        feedback(observed=False, progress_KT=np.ones((3, 3))),
        unmeasured_tiers(3, 3),
        feedback(observed=True, progress_KT=np.full((3, 3), np.nan)),
    ):
        after = rule.update(blank, state)
        for one, other in zip(
            jax.tree.leaves(after), jax.tree.leaves(state), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", sorted(TIER_RULES))
def test_states_resume_bit_exactly_and_can_be_donated(name):
    rule = TIER_RULES[name]()
    rng = np.random.default_rng(0)
    told = [
        replace(
            mastery_feedback(rng.random((3, 3)), step=100 * t),
            progress_KT=jnp.asarray(rng.normal(size=(3, 3)), jnp.float32),
        )
        for t in range(4)
    ]
    update = jax.jit(lambda state, told: rule.update(told, state), donate_argnums=0)
    state, middle = rule.init(SIZES), None
    for t, one in enumerate(told):
        state = update(state, one)
        middle = jax.tree.map(np.asarray, state) if t == 1 else middle
    state = rule.shares(state)
    for one in told[2:]:
        middle = update(jax.tree.map(jnp.asarray, middle), one)
    np.testing.assert_array_equal(rule.shares(middle), state)


# -------------------------------------------------------------- competence


def paced(**options):
    fields = dict(duration=1000, pace="time", floor=0.0)
    return competence(**{**fields, **options})


def test_the_schedule_is_that_of_the_paper():
    steps = np.array([0, 250, 500, 1000, 2000])
    c0 = 0.01
    square = np.minimum(1, np.sqrt(steps * (1 - c0**2) / 1000 + c0**2))
    np.testing.assert_allclose(root_schedule(steps / 1000, c0, 2.0), square, rtol=1e-5)
    linear = np.minimum(1, steps * (1 - c0) / 1000 + c0)
    np.testing.assert_allclose(root_schedule(steps / 1000, c0, 1.0), linear, rtol=1e-5)


@pytest.mark.parametrize("step", [0, 100, 300, 700, 1000, 5000])
def test_time_draws_evenly_from_the_easiest_examples(step):
    """Against a simulation: 10,000 examples in order, the first `c` of them drawn."""
    c = float(root_schedule(jnp.float32(step / 1000), 0.01, 2.0))
    tier_of_example = np.repeat([0, 1, 2], [5000, 3000, 2000])
    drawn = tier_of_example[np.arange(10_000) < round(c * 10_000)]
    expected = np.bincount(drawn, minlength=3) / len(drawn)
    shares = shares_after(paced(), feedback(step))
    np.testing.assert_allclose(shares[0], expected, atol=2e-3)
    np.testing.assert_allclose(shares[2], [1, 0, 0])


def mean_tier(shares):
    return shares @ np.arange(3)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), power=st.sampled_from([1.0, 2.0, 5.0]))
def test_competence_rises_with_mastery_and_time(seed, power):
    rng = np.random.default_rng(seed)
    low = rng.random((3, 3))
    high = low + (1 - low) * rng.random((3, 3))
    rule = paced(pace="measured", duration=1000, power=power, smoothing=0.0)
    easy = shares_after(rule, mastery_feedback(low, step=100))
    for harder in (
        shares_after(rule, mastery_feedback(high, step=100)),
        shares_after(rule, mastery_feedback(low, step=400)),
    ):
        assert np.all(mean_tier(harder) >= mean_tier(easy) - 1e-5)
        # The hardest tier that is open never closes again.
        assert np.all(harder[easy > 0] > 0)


def test_measured_competence_is_the_formula():
    mastery = np.array([[0.6, 0.3, 0.9], [0.9, 0.45, 0.0], [0.0, 0.0, 0.0]])
    rule = paced(pace="measured", duration=float("inf"), mastered=0.9, smoothing=0.0)
    shares = shares_after(rule, mastery_feedback(mastery))
    m = np.minimum(1, mastery / 0.9)
    for k, ability in enumerate(SHARES):
        x = sum(ability[t] * np.prod(m[k, : t + 1]) for t in range(3))
        c = np.sqrt(x * (1 - 1e-4) + 1e-4)
        upper = np.minimum(np.cumsum(ability), c)
        np.testing.assert_allclose(shares[k], np.diff(upper, prepend=0) / c, rtol=1e-4)


def test_hard_tiers_wait_for_the_easy_ones():
    rule = paced(pace="measured", duration=float("inf"), smoothing=0.0)
    only_hard = shares_after(rule, mastery_feedback([[0.0, 1.0, 1.0]] * 3))
    np.testing.assert_allclose(only_hard[:, 0], 1.0)
    all_known = shares_after(rule, mastery_feedback(np.ones((3, 3))))
    np.testing.assert_allclose(all_known, SHARES, rtol=1e-5)


def test_forgetting_sends_back_and_time_does_not_wait():
    rule = paced(pace="measured", duration=1000, smoothing=0.0)
    known, forgotten = np.full((3, 3), 0.8), np.full((3, 3), 0.1)
    before = shares_after(rule, mastery_feedback(known))
    after = shares_after(rule, mastery_feedback(known), mastery_feedback(forgotten))
    assert np.all(mean_tier(after)[:2] < mean_tier(before)[:2])
    late = shares_after(rule, mastery_feedback(forgotten, step=1000))
    np.testing.assert_allclose(late, SHARES, rtol=1e-5)


def test_without_a_reference_competence_goes_by_time():
    told = replace(
        mastery_feedback(np.ones((3, 3)), step=300),
        reference_loss_KT=jnp.full((3, 3), jnp.nan),
    )
    measured = shares_after(paced(pace="measured"), told)
    np.testing.assert_array_equal(measured, shares_after(paced(), feedback(300)))


def test_a_tier_with_nothing_to_learn_is_mastered():
    """It starts at its reference; noise must not count as distance to it."""
    ones = np.ones((3, 3))
    told = feedback(
        val_loss_KT=1.005 * ones,
        val_loss_stderr_KT=0.01 * ones,
        initial_loss_KT=1.001 * ones,
        reference_loss_KT=ones,
    )
    rule = paced(pace="measured", duration=float("inf"))
    np.testing.assert_allclose(shares_after(rule, told), SHARES, rtol=1e-4)


def test_the_average_of_mastery_forgets_its_start():
    rule = paced(pace="measured", duration=float("inf"), smoothing=0.9)
    sharp = paced(pace="measured", duration=float("inf"), smoothing=0.0)
    told = mastery_feedback(np.full((3, 3), 0.5))
    np.testing.assert_allclose(
        shares_after(rule, told), shares_after(sharp, told), rtol=1e-5
    )


def learn(rule, rate_T, difficulty_T, num_updates):
    """One ability whose tier t learns at `rate_t * share_t`, once t - 1 is learnt."""

    def one(carry, step):
        state, loss_T = carry
        ready_T = jnp.concatenate([jnp.ones(1), 1 - loss_T[:-1]]) ** difficulty_T
        loss_T = loss_T * jnp.exp(-rate_T * ready_T * rule.shares(state)[0])
        one_KT = jnp.ones((1, 3))
        told = replace(
            unmeasured_tiers(1, 3),
            val_loss_KT=loss_T[None],
            val_loss_stderr_KT=0 * one_KT,
            initial_loss_KT=one_KT,
            reference_loss_KT=0 * one_KT,
            observed_KT=one_KT > 0,
            step=step,
        )
        state = rule.update(told, state)
        return (state, loss_T), (rule.shares(state)[0], loss_T)

    start = (rule.init(np.ones((1, 3))), jnp.ones(3))
    steps = jnp.arange(num_updates)
    return jax.jit(lambda: jax.lax.scan(one, start, steps))()[1]


def test_where_hard_tiers_need_easy_ones_a_curriculum_learns_more():
    """By the same number of updates; the world that curricula are made for."""
    world = dict(rate_T=jnp.full(3, 0.3), difficulty_T=jnp.array([0, 4, 4.0]))
    rule = competence(pace="measured", duration=float("inf"), floor=0.0)
    path, loss = learn(rule, **world, num_updates=60)
    _, loss_static = learn(TIER_RULES["static"](), **world, num_updates=60)
    assert loss[-1].mean() < 0.8 * loss_static[-1].mean()
    assert path[0][0] > 0.9 and path[-1][2] > 0.2


# ------------------------------------------------------------------ bandit


def plain(**options):
    """Nothing but the formula."""
    fields = dict(floor=0.0, smoothing=0.0, min_spread=1e-6)
    return bandit(**{**fields, **options})


def test_one_update_is_the_formula():
    rule = plain(step_size=0.5, anchor=0.4)
    state, q = rule.init(SIZES), SHARES[0]
    progress = np.array([0.3, 0.05, 0.1])
    r = (progress - progress.mean()) / np.ptp(progress)
    for _ in range(3):
        state = rule.update(progress_feedback([progress] * 3), state)
        raw = q**0.8 * SHARES[0] ** 0.2 * np.exp(0.5 * r)
        q = raw / raw.sum()
        np.testing.assert_allclose(rule.shares(state)[0], q, rtol=1e-5)


def test_the_fixed_point_of_constant_progress():
    rule = plain(anchor=0.5)
    told = progress_feedback([[0.3, 0.05, 0.1], [0.2, 0.1, 0.9], [0.1, 0.0, 0.0]])
    stacked = jax.tree.map(lambda x: jnp.stack([x] * 300), told)
    _, path = run(rule, rule.init(SIZES), stacked)
    r = (np.array([0.3, 0.05, 0.1]) - 0.15) / 0.25
    expected = SHARES[0] * np.exp(r / 0.5)
    np.testing.assert_allclose(path[-1][0], expected / expected.sum(), rtol=1e-4)
    # A tier that does not exist is not read, whatever the feedback says about it.
    r = np.array([0.5, -0.5])
    expected = SHARES[1][:2] * np.exp(r / 0.5)
    np.testing.assert_allclose(path[-1][1][:2], expected / expected.sum(), rtol=1e-4)


def test_small_differences_and_noise_do_not_move_shares():
    tiny = progress_feedback([[1e-4, 2e-4, 3e-4]] * 3)
    shares = shares_after(bandit(floor=0.0), tiny)
    np.testing.assert_allclose(shares[0], SHARES[0], atol=5e-3)
    noisy = progress_feedback([[0.5, 0.1, -0.3]] * 3, stderr=0.6)
    np.testing.assert_allclose(
        shares_after(bandit(floor=0.0), noisy)[0], SHARES[0], rtol=1e-5
    )
    loud = shares_after(bandit(floor=0.0), progress_feedback([[0.5, 0.1, -0.3]] * 3))
    assert loud[0][0] > SHARES[0][0] + 0.05


def test_a_loss_that_rises_counts_only_if_asked():
    told = [progress_feedback([[0.0, -0.4, 0.1]] * 3)] * 8
    signed = shares_after(bandit(), *told)[0]
    absolute = shares_after(bandit(absolute=True), *told)[0]
    assert signed[1] < SHARES[0][1] < absolute[1]


def follow(rule, rates_UT, noise=0.0):
    """Tier t progresses by `rate_t * share_t`; rates are given for every update."""
    start = rule.init(np.ones((1, 3)))

    def one(state, told):
        rate_T, key = told
        progress_T = 0.1 * rate_T * rule.shares(state)[0]
        progress_T += noise * jax.random.normal(key, (3,))
        told = replace(
            unmeasured_tiers(1, 3),
            progress_KT=progress_T[None],
            progress_stderr_KT=jnp.full((1, 3), noise),
            observed_KT=jnp.ones((1, 3), bool),
        )
        state = rule.update(told, state)
        return state, rule.shares(state)[0]

    keys = jax.random.split(jax.random.key(0), len(rates_UT))
    rates = jnp.asarray(rates_UT, jnp.float32)
    return np.asarray(jax.jit(lambda: jax.lax.scan(one, start, (rates, keys)))()[1])


@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_the_bandit_finds_the_tier_that_progresses_and_follows_it(noise):
    rates = np.repeat(np.eye(3), [60, 60, 60], axis=0)
    path = follow(bandit(), rates, noise)
    for tier in range(3):
        end = 60 * tier + 59
        assert path[end].argmax() == tier and path[end, tier] > 0.6
        # Back on top well before the phase is over, although it started at the floor.
        assert path[60 * tier + 30, tier] > 0.5
    assert np.all(path >= 0.1 / 3 - 1e-6)


def test_a_long_time_at_the_floor_is_not_held_against_a_tier():
    rates = np.repeat([[1, 0, 0], [0, 0, 1]], [5000, 60], axis=0)
    for anchor in (0.0, 0.2):
        path = follow(bandit(anchor=anchor), rates)
        assert path[4999, 2] < 0.1 and path[-1, 2] > 0.6


def test_when_all_is_learnt_shares_go_back_to_the_sizes():
    rule = bandit(floor=0.0)
    told = [progress_feedback([[0.5, 0.0, 0.0]] * 3)] * 5
    done = [progress_feedback(np.zeros((3, 3)))] * 60
    shares = shares_after(rule, *told, *done)
    np.testing.assert_allclose(shares, SHARES, atol=0.01)


# ----------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (competence, dict(duration=0), r"tiers.duration is 0, expected in \(0, inf\]"),
        (competence, dict(pace="time", duration=float("inf")), "tiers.duration is inf"),
        (competence, dict(pace="fast"), r"tiers.pace is 'fast', expected one of"),
        (competence, dict(initial=0.0), r"tiers.initial is 0.0, .*\(0, 1\]"),
        (competence, dict(power=0.5), "tiers.power is 0.5"),
        (competence, dict(mastered=1.5), "tiers.mastered is 1.5"),
        (competence, dict(smoothing=1.0), "tiers.smoothing is 1.0"),
        (competence, dict(floor=1.0), "tiers.floor is 1.0"),
        (bandit, dict(step_size=-1.0), "tiers.step_size is -1.0"),
        (bandit, dict(anchor=float("nan")), "tiers.anchor is nan"),
        (bandit, dict(step_size=2.0, anchor=0.6), r"tiers.step_size \* anchor is 1.2"),
        (bandit, dict(smoothing=-0.1), "tiers.smoothing is -0.1"),
        (bandit, dict(min_spread=0.0), "tiers.min_spread is 0.0"),
        (bandit, dict(floor=-0.1), "tiers.floor is -0.1"),
    ],
)
def test_bad_options_are_refused(make, options, message):
    with pytest.raises(ValueError, match=f"mixture.{message}"):
        make(**options)
