"""Mirror descent: closed forms, invariances, and problems with known answers."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from dcft_jax.mixture import RULES, SIGNALS, mirror_descent, unmeasured

GAP = {"normalised_gap": 1.0}
DEFAULT_GAP_RULE = mirror_descent(signals=GAP)


def gap_feedback(gap_K, observed_K=None, stderr=0.0):
    """Feedback whose normalised gap is `gap_K`."""
    gap_K = jnp.asarray(gap_K, jnp.float32)
    ones_K = jnp.ones_like(gap_K)
    return replace(
        unmeasured(len(gap_K)),
        val_loss_K=gap_K,
        val_loss_stderr_K=stderr * ones_K,
        reference_loss_K=0 * ones_K,
        initial_loss_K=ones_K,
        observed_K=ones_K > 0 if observed_K is None else jnp.asarray(observed_K),
    )


def plain(**changes):
    """Nothing but the formula: no floor, no smoothing, no warm-up, no shrinking."""
    fields = dict(
        floor=0.0, smoothing=0.0, warmup_updates=0, signals=GAP, min_spread=1.0
    )
    return mirror_descent(**{**fields, **changes})


@functools.partial(jax.jit, static_argnums=0)
def run(rule, state, feedbacks):
    """Scans over feedback stacked along the first axis; also returns the path."""

    def one(state, feedback):
        state = rule.update(feedback, state)
        return state, rule.weights(state)

    return jax.lax.scan(one, state, feedbacks)


def stack_gaps(gaps_TK, stderr=0.0):
    return jax.vmap(lambda gap_K: gap_feedback(gap_K, stderr=stderr))(
        jnp.asarray(gaps_TK, jnp.float32)
    )


def test_static_is_the_prior_for_ever():
    rule = RULES["static"]()
    prior = np.array([0.2, 0.3, 0.5], np.float32)
    state = rule.update(gap_feedback([1.0, 0.0, 0.0]), rule.init(prior))
    np.testing.assert_array_equal(rule.weights(state), prior)


def test_one_update_is_the_formula():
    prior = np.array([0.2, 0.3, 0.5], np.float32)
    rule = plain(step_size=0.5, anchor=0.4)
    state = rule.init(prior)
    gap = np.array([0.9, 0.5, 0.1])
    weights = prior
    for _ in range(3):
        state = rule.update(gap_feedback(gap), state)
        raw = weights**0.8 * prior**0.2 * np.exp(0.5 * (gap - gap.mean()))
        weights = raw / raw.sum()
        np.testing.assert_allclose(rule.weights(state), weights, rtol=1e-5)


@pytest.mark.parametrize("step_size", [0.1, 0.5, 2.0])
def test_fixed_point_of_a_constant_score(step_size):
    prior = np.array([0.2, 0.3, 0.5], np.float32)
    gap, anchor = np.array([0.9, 0.5, 0.1]), 0.5
    rule = plain(step_size=step_size, anchor=anchor, smoothing=0.5)
    _, path = run(rule, rule.init(prior), stack_gaps(np.tile(gap, (400, 1))))
    expected = prior * np.exp(gap / anchor)
    np.testing.assert_allclose(path[-1], expected / expected.sum(), rtol=2e-4)


def test_no_step_size_is_static_and_full_anchor_is_one_step_from_the_prior():
    prior = np.array([0.2, 0.3, 0.5], np.float32)
    gaps = np.random.default_rng(0).random((50, 3))
    rule = plain(step_size=0.0)
    _, path = run(rule, rule.init(prior), stack_gaps(gaps))
    np.testing.assert_allclose(path, np.tile(prior, (50, 1)), rtol=1e-5)
    rule = plain(step_size=1e-3, anchor=1e3)
    _, path = run(rule, rule.init(prior), stack_gaps(gaps))
    np.testing.assert_allclose(path, np.tile(prior, (50, 1)), rtol=2e-3)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    shift=st.floats(-0.4, 2),
    scale=st.sampled_from([1, 50]),
)
def test_constant_shifts_do_not_matter_and_abilities_permute(seed, shift, scale):
    rng = np.random.default_rng(seed)
    gaps = 0.5 + scale * rng.random((20, 4))
    prior = rng.dirichlet(np.full(4, 5.0)).astype(np.float32)
    order = rng.permutation(4)
    rule = DEFAULT_GAP_RULE
    path = run(rule, rule.init(prior), stack_gaps(gaps))[1]
    shifted = run(rule, rule.init(prior), stack_gaps(gaps + shift))[1]
    np.testing.assert_allclose(shifted, path, rtol=1e-4)
    permuted = run(rule, rule.init(prior[order]), stack_gaps(gaps[:, order]))[1]
    np.testing.assert_allclose(permuted, path[:, order], rtol=1e-4)


def test_drift_is_bounded_by_the_anchor_whatever_the_signal():
    rule = plain(step_size=1.0, anchor=0.5)
    gaps = np.tile([1e5, 0.0, 3.0], (200, 1))
    weights = run(rule, rule.init(np.ones(3) / 3), stack_gaps(gaps))[1][-1]
    assert np.log(weights.max() / weights.min()) <= 1 / 0.5 + 1e-4


def test_warmup_only_measures():
    rule = mirror_descent(warmup_updates=2, signals=GAP)
    state = rule.init(np.ones(2) / 2)
    path = []
    for _ in range(3):
        state = rule.update(gap_feedback([1.0, 0.0]), state)
        path.append(np.asarray(rule.weights(state)))
    np.testing.assert_allclose(path[0], [0.5, 0.5])
    np.testing.assert_allclose(path[1], [0.5, 0.5])
    assert path[2][0] > 0.55
    assert np.all(np.asarray(state.scores.count_JK) == 3)


# ----------------------------------------------------- what is not measured


def test_an_unobserved_ability_keeps_its_score():
    rule = plain(smoothing=0.5)
    state = rule.update(gap_feedback([0.9, 0.5, 0.1]), rule.init(np.ones(3) / 3))
    partial = gap_feedback([0.0, 0.4, 0.2], observed_K=[False, True, True])
    after = rule.update(partial, state)
    assert after.scores.average_JK[0, 0] == state.scores.average_JK[0, 0]
    assert after.scores.average_JK[0, 1] != state.scores.average_JK[0, 1]
    np.testing.assert_array_equal(after.scores.count_JK, [[1, 2, 2]])
    # Its loss of 0 there is not read: nan gives the same state.
    blank = replace(partial, val_loss_K=jnp.array([jnp.nan, 0.4, 0.2]))
    same = rule.update(blank, state)
    for one, other in zip(jax.tree.leaves(after), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_ability_never_measured_counts_as_average():
    rule = plain()
    feedback = gap_feedback([0.8, 0.2, 0.0], observed_K=[True, True, False])
    weights = rule.weights(rule.update(feedback, rule.init(np.ones(3) / 3)))
    assert weights[0] > weights[2] > weights[1]
    np.testing.assert_allclose(np.log(weights[0] / weights[2]), 0.5 * 0.3, rtol=1e-4)


def test_an_update_without_measurement_changes_nothing():
    rule = mirror_descent(warmup_updates=0)
    state = rule.update(gap_feedback([0.9, 0.1]), rule.init(np.ones(2) / 2))
    after = rule.update(unmeasured(2), state)
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_average_is_bias_corrected():
    rule = plain(smoothing=0.9)
    sharp = plain(smoothing=0.0)
    feedback, prior = gap_feedback([0.8, 0.2]), np.ones(2) / 2
    np.testing.assert_allclose(
        rule.weights(rule.update(feedback, rule.init(prior))),
        sharp.weights(sharp.update(feedback, sharp.init(prior))),
        rtol=1e-5,
    )


# ----------------------------------------------------- always on the simplex


NASTY = jnp.array([0.0, 1.0, -1.0, 1e30, -1e30, jnp.inf, jnp.nan, 1e-30])
MEASURED = (
    "val_loss_K",
    "val_loss_stderr_K",
    "reference_loss_K",
    "initial_loss_K",
    "progress_K",
    "progress_stderr_K",
    "rise_K",
    "rise_stderr_K",
    "train_loss_K",
    "static_loss_K",
    "static_stderr_K",
)


def play_adversary(rule, num_updates, least, most_K):
    """Huge, tiny, infinite and missing values; whether the weights stay sound."""

    def one(carry, key):
        state, step = carry
        keys = jax.random.split(key)
        pick = jax.random.choice(keys[0], NASTY, (len(MEASURED), 4))
        feedback = replace(
            unmeasured(4),
            **dict(zip(MEASURED, pick, strict=True)),
            observed_K=jax.random.bernoulli(keys[1], 0.8, (4,)),
            step=step,
        )
        state = rule.update(feedback, state)
        weights = rule.weights(state)
        sound = jnp.all(jnp.isfinite(weights)) & (jnp.abs(weights.sum() - 1) < 1e-5)
        sound &= jnp.all(weights >= least - 1e-6) & jnp.all(weights <= most_K + 1e-6)
        return (state, step + 1), (sound, weights)

    start = (rule.init(np.ones(4) / 4), jnp.int32(0))
    keys = jax.random.split(jax.random.key(0), num_updates)
    (state, _), out = jax.jit(lambda: jax.lax.scan(one, start, keys))()
    return state, *out


def check_state(state):
    """No nan but for what was not measured, and no infinity at all."""
    history, excess = state.guard.history, state.guard.excess
    missing = [history.position_TK, history.loss_TK, history.stderr_TK, excess]
    assert not any(np.any(np.isinf(leaf)) for leaf in missing)
    measured = replace(state, guard=replace(state.guard, history=None, excess=None))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(measured))


@pytest.mark.parametrize(
    ("anchor", "objective"), [(0.0, "worst"), (0.2, "constrained")]
)
def test_adversarial_feedback_for_1e5_updates(anchor, objective):
    caps = [0.5, 1.0, 0.4, 1.0]
    margins = [0.1, None, None, None] if objective == "constrained" else None
    rule = mirror_descent(
        anchor=anchor,
        floor=0.1,
        max_weight_K=caps,
        objective=objective,
        retain_margin_K=margins,
    )
    state, sound, path = play_adversary(rule, 100_000, 0.1 / 4, jnp.array(caps))
    assert np.all(sound)
    assert np.std(path, axis=0).min() > 0.01  # the feedback did reach the weights
    check_state(state)


def test_adversarial_feedback_with_a_guard_and_exclusion():
    rule = mirror_descent(guard=2.0, overfitting="exclude", warmup_updates=8)
    state, sound, path = play_adversary(rule, 3000, 0.0, jnp.ones(4))
    assert np.all(sound) and np.any(path == 0) and np.any(path > 0.5)
    assert np.isfinite(state.guard.excess)
    check_state(state)


def test_one_sided_feedback_for_1e5_updates_recovers_quickly():
    """Without an anchor a weight waits at the floor instead of sinking for ever."""
    rule = mirror_descent(anchor=0.0, floor=0.1, signals=GAP)
    start = rule.init(np.ones(2) / 2)
    state, path = run(rule, start, stack_gaps(np.tile([1.0, 0.0], (100_000, 1))))
    np.testing.assert_allclose(path[-1], [0.95 - 0.045, 0.05 + 0.045], atol=5e-3)
    _, path = run(rule, state, stack_gaps(np.tile([0.0, 1.0], (12, 1))))
    assert path[-1][1] > 0.8


# ----------------------------------------------------- problems with known answers


def minimax_weights(curvature_K, centre_KD):
    """The best worst case of `a_k |x - c_k|^2` and the mixture that reaches it."""
    num = len(curvature_K)

    def dual(logits):
        w = np.exp(logits - logits.max())
        w = w / w.sum() * curvature_K
        x = w @ centre_KD / w.sum()
        gaps = curvature_K * np.sum((x - centre_KD) ** 2, axis=1)
        return -np.sum(w / curvature_K * gaps)

    found = minimize(dual, np.zeros(num), method="Nelder-Mead", tol=1e-10)
    weights = np.exp(found.x - found.x.max())
    return weights / weights.sum(), -found.fun


def test_quadratic_abilities_reach_the_best_worst_case():
    """The model is always optimal for the mixture; the rule finds the mixture."""
    curvature = np.array([0.6, 0.2, 0.4])
    centre = np.array([[0.0, 0.0], [1.5, 0.0], [0.5, 1.2]])
    best, value = minimax_weights(curvature, centre)
    assert best.min() > 0.02
    rule = plain(step_size=0.05, anchor=0.0)

    def one(state, _):
        weight_K = rule.weights(state) * curvature
        x_D = weight_K @ centre / weight_K.sum()
        gap_K = curvature * jnp.sum((x_D - centre) ** 2, axis=1)
        return rule.update(gap_feedback(gap_K), state), (rule.weights(state), gap_K)

    start = rule.init(np.ones(3) / 3)
    _, (path, gaps) = jax.jit(lambda: jax.lax.scan(one, start, None, 4000))()
    np.testing.assert_allclose(path[-1], best, atol=2e-3)
    np.testing.assert_allclose(np.max(gaps[-1]), value, rtol=5e-3)


@pytest.mark.parametrize("kind", ["random", "alternating", "late"])
def test_regret_against_the_best_fixed_mixture(kind):
    """Hedge's bound: log(K) / eta + eta T / 8, for gains that span at most 1."""
    num_updates, num_abilities = 2000, 5
    gaps = np.random.default_rng(0).random((num_updates, num_abilities))
    if kind == "alternating":
        gaps = np.eye(num_abilities)[np.arange(num_updates) % num_abilities]
    elif kind == "late":
        gaps[: num_updates // 2, 1:] *= 0.3
        gaps[num_updates // 2 :, 0] *= 0.3
    eta = np.sqrt(8 * np.log(num_abilities) / num_updates)
    rule = plain(step_size=float(eta), anchor=0.0)
    start = rule.init(np.ones(num_abilities) / num_abilities)
    path = np.asarray(run(rule, start, stack_gaps(gaps))[1])
    played = np.vstack([np.full((1, num_abilities), 1 / num_abilities), path[:-1]])
    regret = gaps.sum(axis=0).max() - np.sum(played * gaps)
    assert regret <= np.log(num_abilities) / eta + eta * num_updates / 8


def train_towards_reference(rule, num_updates, reference_K, start_K, noise, seed=0):
    """Losses decay to their references at a rate set by the weights; scanned."""
    reference_K, start_K = jnp.float32(reference_K), jnp.float32(start_K)
    stderr_K = jnp.full(len(start_K), noise, jnp.float32)

    def one(carry, key):
        state, loss_K, seen_K = carry
        loss_K = reference_K + (loss_K - reference_K) * jnp.exp(-rule.weights(state))
        val_K = loss_K + noise * jax.random.normal(key, loss_K.shape)
        feedback = replace(
            unmeasured(len(loss_K)),
            val_loss_K=val_K,
            val_loss_stderr_K=stderr_K,
            reference_loss_K=reference_K,
            initial_loss_K=start_K,
            progress_K=seen_K - val_K,
            progress_stderr_K=2**0.5 * stderr_K,
            observed_K=jnp.ones(len(loss_K), bool),
        )
        state = rule.update(feedback, state)
        return (state, loss_K, val_K), rule.weights(state)

    keys = jax.random.split(jax.random.key(seed), num_updates)
    start = (rule.init(jnp.ones(len(start_K)) / len(start_K)), start_K, start_K)
    return np.asarray(jax.jit(lambda: jax.lax.scan(one, start, keys))()[1])


TRAP = dict(reference_K=[0.5, 0.5, 6.0], start_K=[3.0, 3.0, 6.0], noise=0.02)


def test_irreducible_loss_does_not_attract_weight():
    path = train_towards_reference(mirror_descent(), 400, **TRAP)
    assert path[:20, 2].min() < 0.25  # while the others still learn
    # When all are done, noise moves it. A gap is never negative, so noise has a small
    # positive mean there, which the average over updates shows.
    assert path[100:, 2].mean() <= 1 / 3 + 0.05
    assert path[:, 2].max() < 0.5


def test_the_trap_catches_a_rule_that_follows_raw_loss(monkeypatch):
    monkeypatch.setitem(SIGNALS, "raw_loss", lambda feedback: feedback.val_loss_K)
    rule = mirror_descent(signals={"raw_loss": 1.0})
    path = train_towards_reference(rule, 200, **TRAP)
    assert path[-1, 2] > 0.5  # as far as the anchor lets it


def test_a_saturated_ability_falls_to_the_floor_and_comes_back():
    floor = 0.1
    rule = mirror_descent(signals=GAP, floor=floor)
    easy = np.tile([0.0, 0.8, 0.8], (40, 1))
    hard_again = np.tile([1.0, 0.3, 0.3], (10, 1))
    start = rule.init(np.ones(3) / 3)
    path = np.asarray(run(rule, start, stack_gaps(np.vstack([easy, hard_again])))[1])
    assert np.all(path >= floor / 3 - 1e-6)
    assert path[39, 0] < 0.18  # e^-1 of the others, which is as far as it goes
    assert path[-1, 0] > 1 / 3


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_equal_abilities_under_noise_stay_near_the_prior(noise):
    """Neither the normalisation nor the sum over 1e4 updates inflates noise."""
    rng = np.random.default_rng(0)
    prior = np.array([0.2, 0.3, 0.5], np.float32)
    rule = mirror_descent(floor=0.0, signals=GAP)
    gaps = 0.4 + noise * rng.standard_normal((10_000, 3))
    path = np.asarray(run(rule, rule.init(prior), stack_gaps(gaps, noise))[1])
    deviation = np.log(path / prior)
    # The log weights are an average of scores of size noise / min_spread over
    # 1 / (step_size * anchor) = 10 updates, times 1 / anchor.
    expected = noise / 0.5 / 0.2 * np.sqrt(0.1 / (2 - 0.1))
    assert deviation.std() < 2 * expected
    assert np.abs(deviation).max() < 8 * expected
    assert np.abs(deviation[1:].mean(axis=0)).max() < 0.1 * expected + 0.01


def test_score_minimum_is_what_keeps_noise_small():
    rng = np.random.default_rng(0)
    rule = mirror_descent(floor=0.0, signals=GAP, min_spread=1e-6)
    gaps = 0.4 + 0.01 * rng.standard_normal((2000, 3))
    path = np.asarray(run(rule, rule.init(np.ones(3) / 3), stack_gaps(gaps, 0.01))[1])
    assert np.log(path * 3).std() > 0.3


# ----------------------------------------------------- construction and state


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(step_size=-0.1), r"step_size is -0.1, expected in \[0, inf\)"),
        (dict(anchor=-1.0), "anchor is -1.0"),
        (dict(step_size=2.0, anchor=0.6), r"step_size \* anchor is 1.2, .*\[0, 1\]"),
        (dict(floor=1.0), r"floor is 1.0, expected in \[0, 1\)"),
        (dict(smoothing=1.0), "smoothing is 1.0"),
        (dict(smoothing=float("nan")), "smoothing is nan"),
        (dict(warmup_updates=-1), "warmup_updates is -1"),
        (dict(min_spread=0.0), "min_spread is 0.0"),
        (dict(signals={}), "signals is empty"),
        (
            dict(signals={"loss": 1.0}),
            "names 'loss', expected some of .*normalised_gap",
        ),
        (dict(signals={"normalised_gap": float("inf")}), "normalised_gap is inf"),
        (dict(max_weight_K=[0.4, 0.4]), "sums to 0.8, expected at least 1"),
        (dict(max_weight_K=[0.01, 1.0]), "max_weight of ability 0 is 0.01"),
        (dict(max_weight_K=[1.2, 1.0]), "max_weight of ability 0 is 1.2"),
    ],
)
def test_bad_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        mirror_descent(**fields)


def test_caps_for_another_number_of_abilities_are_refused():
    with pytest.raises(ValueError, match="2 entries for 3 abilities"):
        mirror_descent(max_weight_K=[0.5, 1.0]).init(np.ones(3) / 3)


OF_THE_RUN = {
    "proportional": dict(sizes_K=[1, 2, 3]),
    "temperature": dict(sizes_K=[1, 2, 3]),
    "dmt": dict(sizes_K=[1, 2, 3], num_steps=4, general=[2]),
    "random_walk": dict(seed=0),
}


@pytest.mark.parametrize("name", sorted(set(RULES) - {"replay"}))  # it needs a run
def test_rules_resume_bit_exactly_from_their_state(name):
    rule = RULES[name](**OF_THE_RUN.get(name, {}))
    prior = np.array([0.2, 0.3, 0.5], np.float32)
    gaps = np.random.default_rng(0).random((6, 3))
    update = jax.jit(rule.update)
    state, states = rule.init(prior), []
    for gap in gaps:
        state = update(gap_feedback(gap), state)
        states.append(state)
    host = jax.tree.map(np.asarray, states[2])
    for gap in gaps[3:]:
        host = update(gap_feedback(gap), host)
    np.testing.assert_array_equal(rule.weights(host), rule.weights(states[-1]))


def test_the_order_of_the_signals_does_not_matter():
    names = ["paired_progress", "normalised_gap"]
    one = mirror_descent(signals={name: 1.0 for name in names})
    other = mirror_descent(signals={name: 1.0 for name in reversed(names)})
    feedback = replace(gap_feedback([0.9, 0.1]), progress_K=jnp.array([0.1, 0.3]))
    states = [rule.update(feedback, rule.init(np.ones(2) / 2)) for rule in (one, other)]
    np.testing.assert_array_equal(
        states[0].scores.average_JK, states[1].scores.average_JK
    )
