"""Mirror descent on problems whose answers are known, with its default options."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

from configs.base import rule_options
from dcft_jax.mixture import RULES, mirror_descent
from experiments.mixture_problems import simulate
from experiments.trap_problems import (
    NUM_UPDATES,
    RANGE,
    SHIFT,
    conflict,
    equal,
    noise,
    repetition,
    saturation,
    separate,
    tour,
)

DEFAULTS = rule_options()["mirror_descent"].to_dict()
FLOOR, MIN_SPREAD = DEFAULTS["floor"], DEFAULTS["min_spread"]


def learned(state):
    return dict(
        flagged_K=state.overfit.flagged_K,
        level=state.guard.level,
        dual_K=jnp.exp(state.objective.log_dual_K),
    )


@functools.cache
def compiled(margins=None, backwards=False, **changes):
    options = {**DEFAULTS, **changes}
    if backwards:  # feeds what is learnt already
        options["signals"] = {"normalised_gap": -1.0}
    rule = mirror_descent(**options, retain_margin_K=margins)
    return jax.jit(lambda problem: simulate(rule, problem, learned))


def run(problem, margins=None, backwards=False, **changes):
    path = compiled(margins, backwards, **changes)(problem)
    return jax.tree.map(np.asarray, path)


@functools.cache
def static_runs():
    rule = RULES["static"]()
    one = lambda prior_K, problem: simulate(rule, replace(problem, prior_K=prior_K))  # noqa: E731
    return jax.jit(jax.vmap(one, (0, None)))


def run_static(problem, prior_NK=None):
    prior_NK = problem.prior_K[None] if prior_NK is None else prior_NK
    return jax.tree.map(np.asarray, static_runs()(jnp.asarray(prior_NK), problem))


def shares(problem, loss_UK):
    """What is left to learn, of what there was."""
    entropy_K = np.asarray(problem.entropy_K)
    range_K = run_static(problem).loss_UK[0, 0] - entropy_K
    return (loss_UK - entropy_K) / np.maximum(range_K, 1e-6)


# ------------------------------------------- closed forms, in numpy and independent


def converged_gaps(problem, weights_K):
    """Gaps at the minimum of the weighted sum, as shares of those at the start."""
    factor = np.asarray(problem.factor_KDD, np.float64)
    centre = np.asarray(problem.centre_UKD[-1], np.float64)
    hessian = np.einsum("kji,kjl->kil", factor, factor)
    matrix = np.einsum("k,kij->ij", weights_K, hessian)
    pulled = np.einsum("k,kij,kj->i", weights_K, hessian, centre)
    theta = np.linalg.lstsq(matrix, pulled, rcond=None)[0]

    def gaps(theta):
        away = theta - centre
        return 0.5 * np.einsum("ki,kij,kj->k", away, hessian, away)

    return gaps(theta) / gaps(np.asarray(problem.start_D, np.float64))


def softmax(x):
    x = np.exp(x - x.max())
    return x / x.sum()


def predicted_weights(problem, objective, anchor):
    """The fixed point `prior exp(s(w) / anchor)` of the documented rule."""
    prior = np.asarray(problem.prior_K, np.float64)
    weights = prior
    for _ in range(2000):
        gap = converged_gaps(problem, weights)
        importance = np.ones(len(gap))
        if objective == "worst":
            importance = len(gap) * softmax(gap / max(gap.max(), 0.1) / anchor)
        signal = importance * gap
        score = (signal - signal.mean()) / max(np.ptp(signal), MIN_SPREAD)
        new = softmax(np.log(prior) + score / anchor)
        weights = 0.9 * weights + 0.1 * ((1 - FLOOR) * new + FLOOR / len(gap))
    return weights


def best_mixture(problem, value):
    def of(logits):
        return value(converged_gaps(problem, softmax(np.append(logits, 0.0))))

    options = dict(maxiter=4000, xatol=1e-9, fatol=1e-9)
    found = minimize(of, np.zeros(2), method="Nelder-Mead", options=options)
    return softmax(np.append(found.x, 0.0)), found.fun


# ------------------------------------------- the optimum, as near as the anchor lets


@pytest.mark.parametrize("objective", ["mean", "worst"])
@pytest.mark.parametrize("anchor", [DEFAULTS["anchor"], 0.3])
def test_weights_converge_to_the_predicted_fixed_point(objective, anchor):
    problem = conflict()
    path = run(problem, objective=objective, anchor=anchor)
    expected = predicted_weights(problem, objective, anchor)
    np.testing.assert_allclose(path.weights_UK[-1], expected, atol=5e-3)
    drift = np.log(path.weights_UK[-1] / np.asarray(problem.prior_K))
    assert 0.05 < np.ptp(drift) <= 1 / anchor  # it moved, and not too far


def test_the_worst_ability_gains_and_a_weaker_anchor_reaches_the_optimum():
    problem = conflict()
    best_K, best = best_mixture(problem, np.max)
    prior = converged_gaps(problem, np.asarray(problem.prior_K)).max()
    assert prior > 1.3 * best  # there is something to gain
    left = {}
    for objective, anchor in (("worst", 1.0), ("worst", 0.3), ("mean", 1.0)):
        path = run(problem, objective=objective, anchor=anchor)
        worst = shares(problem, path.loss_UK)[-1].max()
        left[objective, anchor] = (worst - best) / (prior - best)
    assert left["worst", 1.0] < 0.75
    assert left["worst", 1.0] < left["mean", 1.0] < 0.9
    assert left["worst", 0.3] < 0.3
    # An anchor that is weak enough, with small steps, ends at the optimum itself.
    path = run(problem, anchor=0.001, step_size=0.15, smoothing=0.0, floor=0.0)
    np.testing.assert_allclose(path.weights_UK[-1], best_K, atol=0.02)
    assert shares(problem, path.loss_UK)[-1].max() < best + 0.05 * (prior - best)


GRID = np.array(
    [(i, j, 20 - i - j) for i in range(1, 19) for j in range(1, 20 - i)], np.float32
)


@pytest.mark.parametrize(
    ("make", "allowed"),
    [
        (lambda: separate([0.3, 0.1, 0.05]), 0.0),
        (saturation, 0.0),
        (conflict, 0.02),
        (noise, 0.25),
        (repetition, 0.05),
    ],
    ids=["separate", "saturation", "conflict", "noise", "repetition"],
)
def test_regret_against_the_best_fixed_mixture(make, allowed):
    """The mean loss over the whole run, against 171 mixtures and the prior.

    Where abilities end at different times, a fixed mixture cannot follow. With noise
    the best one starves the ability without anything to learn; the anchor forbids it.
    """
    problem = make()
    loss_NUK = run_static(problem, GRID / 20).loss_UK
    best = shares(problem, loss_NUK).mean(axis=(1, 2)).min()
    prior = shares(problem, run_static(problem).loss_UK).mean()
    dynamic = shares(problem, run(problem).loss_UK).mean()
    assert dynamic <= (1 + allowed) * best
    assert dynamic < prior


def retaining(shift):
    """Ability 0 starts at its best; learning 1 moves a parameter that it needs."""
    factor = np.sqrt(0.5) * np.stack(
        [np.diag([1.0, 0, 0]), np.diag([1.0, 1, 0]), np.diag([0, 0, 1.0])]
    )
    centre = np.array([[0, 0, 0], [shift, 2.0, 0], [0, 0, 2.0]])
    problem = separate([0.3, 0.3, 0.3])
    return replace(
        problem,
        factor_KDD=jnp.asarray(factor, jnp.float32),
        centre_UKD=jnp.broadcast_to(jnp.float32(centre), (NUM_UPDATES, 3, 3)),
    )


@pytest.mark.parametrize(("shift", "margin"), [(0.8, 0.02), (1.0, 0.02)])
def test_a_retained_ability_keeps_its_margin_and_the_targets_gain(shift, margin):
    problem = retaining(shift)
    path = run(problem, (margin, None, None), objective="constrained")
    # L_0 = x^2 / 4 and L_1 = (x - shift)^2 / 4 in the shared parameter x.
    best = minimize_scalar(
        lambda x: (x - shift) ** 2 / 4,
        bounds=(0, np.sqrt(4 * margin)),
        method="bounded",
    ).fun
    end_K = path.loss_UK[-100:].mean(axis=0) - 0.5
    assert end_K[0] <= margin + 0.002
    assert path.loss_UK[-100:, 0].max() - 0.5 <= margin + 0.005
    assert best - 0.002 <= end_K[1] <= best + 0.015
    assert end_K[2] < 0.005
    prior_K = run_static(problem).loss_UK[0, -1] - 0.5
    assert prior_K[0] > 1.5 * margin  # the constraint does bind


def test_a_slack_constraint_gives_its_weight_away():
    path = run(retaining(0.0), (0.02, None, None), objective="constrained")
    assert np.all(path.weights_UK[20:, 0] < 0.9 / 3)
    assert np.all(path.weights_UK[5:100, 0] >= FLOOR / 3)
    assert path.loss_UK[-1, 0] <= 0.5 + 1e-4
    np.testing.assert_allclose(path.probe_U["dual_K"][-1, 0], 0.02, rtol=1e-3)


# ------------------------------------------- traps


@pytest.mark.parametrize("reference", [6.0, np.nan], ids=["known", "unknown"])
def test_an_ability_without_anything_to_learn_gains_no_weight(reference):
    problem = noise()
    problem = replace(
        problem, reference_K=problem.reference_K.at[2].set(jnp.float32(reference))
    )
    path = run(problem)
    weight_U = path.weights_UK[:, 2]
    assert weight_U[2:60].max() < (0.28 if reference == 6.0 else 0.35)
    assert weight_U.max() < 1 / 3 + 0.06 and weight_U.mean() <= 1 / 3 + 0.005
    assert weight_U[-100:].mean() < 1 / 3 + 0.02
    assert np.all(path.loss_UK[-1, :2] < 0.51)


def test_a_saturated_ability_gives_way_and_recovers_when_it_is_hard_again():
    path = run(saturation())
    weight_U = path.weights_UK[:, 0]
    assert weight_U[20:100].max() < 0.6 / 3
    assert weight_U[20:SHIFT].max() < 1 / 3 and weight_U.min() >= FLOOR / 3
    assert weight_U[SHIFT + 3] > 1 / 3  # within three updates
    assert not path.probe_U["flagged_K"].any()  # harder data are no overfitting
    assert path.loss_UK[-1, 0] < 0.51


def test_noise_after_a_shift_is_no_overfitting():
    """The best before the shift was lucky, and is out of reach for a long time."""
    path = run(tour())
    assert not path.probe_U["flagged_K"].any()
    assert path.weights_UK[SHIFT + 4, 0] > 1 / 3


@pytest.mark.parametrize("mode", ["floor", "exclude"])
def test_a_small_ability_that_overfits_gives_up_its_weight_and_comes_back(mode):
    problem = repetition()
    path = run(problem, overfitting=mode)
    flagged_U = path.probe_U["flagged_K"][:, 2]
    first = int(flagged_U.argmax())
    best = path.loss_UK[: first + 1, 2].min()
    assert flagged_U.any() and path.loss_UK[first, 2] < best + 0.15 * RANGE
    held_U = path.weights_UK[flagged_U, 2]
    if mode == "exclude":
        np.testing.assert_allclose(held_U, 0.0, atol=1e-6)
    else:  # by half at every update, not below the floor
        halved_U = path.weights_UK[1:, 2] / path.weights_UK[:-1, 2]
        assert np.all(halved_U[flagged_U[1:]] < 0.75)
        assert held_U.min() >= FLOOR / 3 - 1e-6
    assert not path.probe_U["flagged_K"][:, :2].any()
    back_U = flagged_U[:-1] & ~flagged_U[1:]
    before_U, after_U = path.weights_UK[:-1][back_U, 2], path.weights_UK[1:][back_U, 2]
    assert back_U.any() and np.all(after_U > 1.5 * before_U)
    # Others do not suffer, and the small one ends where it can be.
    prior, ignored = run_static(problem), run(problem, overfitting="ignore")
    assert np.all(path.loss_UK[-1, :2] <= prior.loss_UK[0, -1, :2] + 1e-3)
    assert path.loss_UK[-100:, 2].mean() < 0.5 + 0.2 * RANGE
    assert prior.loss_UK[0, -1, 2] > 0.5 + 0.4 * RANGE
    assert ignored.loss_UK[-1, 2] > 0.5 + RANGE  # the gap alone feeds the trap


def opposed(curvature_K):
    """Centres at -1 and 1 on one axis; ability 2 is elsewhere."""
    first = np.sqrt(curvature_K)[:, None, None] * np.diag([1.0, 0, 0])
    factor = np.stack([*first, np.diag([0, np.sqrt(0.5), 0])])
    centre = np.array([[-1.0, 0, 0], [1.0, 0, 0], [0, 2.0, 0]])
    return replace(
        separate([0.3, 0.3, 0.3]),
        factor_KDD=jnp.asarray(factor, jnp.float32),
        centre_UKD=jnp.broadcast_to(jnp.float32(centre), (NUM_UPDATES, 3, 3)),
    )


def test_a_conflict_pair_is_balanced_by_its_gaps():
    path = run(opposed(np.array([0.6, 0.6])))
    np.testing.assert_allclose(path.weights_UK[:, 0], path.weights_UK[:, 1], atol=1e-5)
    np.testing.assert_allclose(path.loss_UK[-1, :2], 0.5 + 0.3, atol=1e-3)
    # The gentler one is pulled away from its centre, and gets more weight for it.
    problem = opposed(np.array([0.9, 0.3]))
    path = run(problem)
    expected = predicted_weights(problem, "mean", DEFAULTS["anchor"])
    np.testing.assert_allclose(path.weights_UK[-1], expected, atol=5e-3)
    worst = run_static(problem).loss_UK[0, -1, 1]
    assert path.weights_UK[-1, 1] > 0.4 and path.loss_UK[-1, 1] < worst - 0.03


def test_equal_abilities_stay_at_the_prior_for_1e4_updates():
    problem = equal(10_000)
    problem = replace(problem, static_loss_UK=jnp.full((10_000, 3), 2.0))
    path = run(problem, guard=3.0)
    prior = np.asarray(problem.prior_K)
    start = np.log((1 - FLOOR) * prior + FLOOR / 3)
    drift_UK = np.log(path.weights_UK) - start
    # Two signals whose errors together are sqrt(3) of a loss's, over min_spread, times
    # 1 / anchor; two averages over 1 / (1 - 0.5) updates only make it smaller.
    stderr = float(problem.eval_stderr_K[0])
    bound = np.sqrt(3) * stderr / MIN_SPREAD / DEFAULTS["anchor"]
    assert drift_UK.std(axis=0).max() < bound / 2
    assert np.abs(drift_UK).max() < 2 * bound
    assert np.abs(path.weights_UK - prior).max() < 0.1
    assert path.probe_U["flagged_K"].mean() < 1e-3
    assert (path.probe_U["level"] > 0).mean() < 0.01


# ------------------------------------------- the guard


def noisy(problem, stderr=0.005, seed=1):
    rng = np.random.default_rng(seed)
    noise_UK = stderr * rng.standard_normal((NUM_UPDATES, 3))
    return replace(
        problem,
        eval_noise_UK=jnp.asarray(noise_UK, jnp.float32),
        eval_stderr_K=jnp.full(3, stderr),
    )


def test_the_guard_engages_when_the_prior_would_do_better_and_releases():
    problem = noisy(separate([1.2, 0.6, 0.3]))
    static = run_static(problem)
    guarded = replace(problem, static_loss_UK=jnp.asarray(static.loss_UK[0]))
    options = dict(backwards=True, anchor=0.3)
    path = run(guarded, **options, guard=3.0)
    open_path = run(problem, **options)
    level_U = path.probe_U["level"]
    assert level_U[:100].max() == 1 and np.all(level_U[-100:] < 1)
    assert (level_U[-100:] == 0).mean() > 0.9
    engaged_U = level_U == 1
    floored = (1 - FLOOR) / 3 + FLOOR / 3
    np.testing.assert_allclose(path.weights_UK[engaged_U], floored, rtol=1e-5)
    mean = {
        name: shares(problem, loss_UK).mean()
        for name, loss_UK in (
            ("static", static.loss_UK[0]),
            ("guarded", path.loss_UK),
            ("open", open_path.loss_UK),
        )
    }
    lost = (mean["guarded"] - mean["static"]) / (mean["open"] - mean["static"])
    assert mean["open"] > 1.15 * mean["static"]
    assert lost < 0.4


def test_no_steps_are_the_static_run():
    problem = noise()
    static = run_static(problem)
    still = run(problem, step_size=0.0, anchor=0.0, floor=0.0)
    np.testing.assert_allclose(still.weights_UK, 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(still.loss_UK, static.loss_UK[0], rtol=1e-5)
