"""All engines compute one update; the reference holds every gradient in float64."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dcft_jax.conflict import (
    ENGINES,
    GRANULARITIES,
    RESOLVERS,
    Engine,
    Problem,
    adam_metric,
    combine,
    grouped_gramian,
    init_engine,
    make_groups,
    resolve_slots,
    resolved_gradient,
)
from dcft_jax.conflict.resolution import SlotSums
from tests.conflict import tiny_model
from tests.conflict.tiny_model import ABILITY_S, K, S, loss_fn, make_params, make_slots

WEIGHTS = np.array([0.5, 0.2, 0.3], np.float32)
SAME_UPDATE = ("materialize", "accumulate", "two_pass")
TAPPED = ("two_pass", "lagged")


def make_engine(name: str, resolver: str = "upgrad", granularity: str = "global", **kw):
    groups = make_groups(make_params(), granularity)
    return Engine(name, RESOLVERS[resolver](), groups, K, **kw)


def make_problem(slots=None, ability_S=ABILITY_S, scale=None, params=None) -> Problem:
    slots = jax.tree.map(jnp.asarray, make_slots() if slots is None else slots)
    params = make_params() if params is None else params
    return Problem(loss_fn, params, {}, slots, jnp.asarray(ability_S), WEIGHTS, scale)


def run(engine: Engine, problem: Problem, state=None):
    state = init_engine(engine) if state is None else state

    @jax.jit
    def step(params, slots, ability_S, weights_K, scale, state):
        here = Problem(loss_fn, params, {}, slots, ability_S, weights_K, scale)
        return resolved_gradient(engine, here, state)

    return step(
        problem.params,
        problem.slots,
        problem.ability_S,
        problem.weights_K,
        problem.scale,
        state,
    )


@partial(jax.jit, static_argnames="together")
def _slot_rows(params, slots, together):
    def one(slot):
        return jax.grad(lambda p: loss_fn(p, {}, slot)[0])(params)

    return jax.vmap(one)(slots) if together else jax.lax.map(one, slots)


def slot_rows(problem: Problem, together: bool = False):
    """Gradients of the slots' sums, one after the other or all at once."""
    return _slot_rows(problem.params, problem.slots, together)


def reference(engine: Engine, problem: Problem, together: bool = False):
    @jax.jit
    def resolve(rows, slots, scale):
        gram = grouped_gramian(rows, engine.measured, scale)
        loss_S, count_S = jax.vmap(lambda slot: loss_fn(problem.params, {}, slot))(
            slots
        )
        sums = SlotSums(gram, loss_S, count_S, problem.ability_S)
        state = init_engine(engine).resolver
        per_group = len(engine.groups.names) > 1
        weights_K = problem.weights_K
        resolved = resolve_slots(engine.resolver, sums, weights_K, state, per_group)
        return combine(rows, resolved.coefficients_GS, engine.groups), resolved

    return resolve(slot_rows(problem, together), problem.slots, problem.scale)


def assert_close(one, other, rtol):
    for (path, x), y in zip(
        jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True
    ):
        scale = np.abs(y).max() + 1e-20
        where = jax.tree_util.keystr(path)
        np.testing.assert_allclose(x / scale, y / scale, atol=rtol, err_msg=where)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", SAME_UPDATE)
def test_engines_agree(name, granularity):
    engine, problem = make_engine(name, granularity=granularity), make_problem()
    outcome = run(engine, problem)
    expected, _ = reference(engine, problem)
    assert_close(outcome.gradient, expected, 2e-6)
    # Of gradients that are rounded as the engine's are: how they were computed shows in
    # what is left of nearly orthogonal ones.
    _, resolved = reference(engine, problem, together=name != "accumulate")
    np.testing.assert_allclose(
        outcome.diagnostics.gram_KK, resolved.diagnostics.gram_KK, rtol=1e-6
    )
    assert bool(outcome.diagnostics.acted)  # otherwise the comparison shows nothing


@pytest.mark.parametrize("name", ENGINES)
def test_gramian_of_every_engine_and_its_blocks(name):
    groups = make_groups(make_params(), "block")
    engine = make_engine(name, watched=groups)
    problem = make_problem()
    outcome = run(engine, problem)
    rows = slot_rows(problem)
    flat = np.concatenate(
        [np.asarray(x, np.float64).reshape(S, -1) for x in jax.tree.leaves(rows)],
        axis=1,
    )
    count_S = np.asarray(outcome.count_S, np.float64)
    mean_K = np.stack(
        [flat[k == ABILITY_S].sum(0) / count_S[k == ABILITY_S].sum() for k in range(K)]
    )
    expected = mean_K @ mean_K.T
    info = outcome.diagnostics
    np.testing.assert_allclose(
        info.gram_KK, expected, rtol=2e-6, atol=1e-6 * expected.max()
    )
    assert groups.names == ("embed", "layers.0", "layers.1", "layers.2")
    kernel = np.asarray(rows["layers"]["kernel"], np.float64)[:, 1].reshape(S, -1)
    bias = np.asarray(rows["layers"]["bias"], np.float64)[:, 1]
    layer = np.concatenate([kernel, bias], axis=1)
    layer_K = np.stack([layer[k == ABILITY_S].sum(0) for k in range(K)])
    unit_K = layer_K / np.linalg.norm(layer_K, axis=1, keepdims=True)
    np.testing.assert_allclose(info.group_cosines_GKK[2], unit_K @ unit_K.T, atol=1e-5)


def test_lagged_applies_the_previous_coefficients():
    engine = make_engine("lagged")
    first, second = make_problem(), make_problem(make_slots(1))
    start = init_engine(engine)
    outcome = run(engine, first, start)
    mean = run(make_engine("materialize", "mean"), first)
    assert_close(outcome.gradient, mean.gradient, 2e-6)
    assert not bool(outcome.diagnostics.acted)
    resolved = run(make_engine("materialize"), first)
    coefficients_K = outcome.state.ratio_GK[0] * WEIGHTS
    np.testing.assert_allclose(
        coefficients_K, resolved.diagnostics.coefficients_K, rtol=1e-5
    )
    after = run(engine, second, outcome.state)
    rows = slot_rows(second)
    counts = np.asarray(after.count_S)
    total_K = np.array([counts[k == ABILITY_S].sum() for k in range(K)])
    slot_c = np.asarray(coefficients_K)[ABILITY_S] / total_K[ABILITY_S]
    assert_close(after.gradient, combine(rows, jnp.asarray(slot_c)), 2e-6)
    np.testing.assert_allclose(
        after.diagnostics.coefficients_K, coefficients_K, rtol=1e-6
    )


def test_lagged_remembers_the_ratio_of_an_absent_ability():
    engine = make_engine("lagged")
    state = run(engine, make_problem()).state
    absent = make_problem(make_slots(1), np.array([0, 1, 0, 1, 1, 0], np.int32))
    after = run(engine, absent, state).state
    assert after.ratio_GK[0, 2] == state.ratio_GK[0, 2]


@pytest.mark.parametrize("name", ENGINES)
def test_adam_metric(name):
    engine = make_engine(name, "upgrad")
    params = make_params()
    adam = optax.adam(1e-3, b1=0.9, b2=0.95, eps=1e-8)
    opt_state = adam.init(params)
    ones = adam_metric(opt_state, 0.95, 1e-8)
    assert all(np.all(x == 1) for x in jax.tree.leaves(ones))
    for seed in range(3):
        grads = jax.tree.map(
            lambda x, s=seed: jax.random.normal(jax.random.key(s), x.shape) * x, params
        )
        updates, opt_state = adam.update(grads, opt_state)
    scale = adam_metric(opt_state, 0.95, 1e-8)
    # Adam's own step is momentum times the same diagonal.
    momentum = jax.tree.map(lambda m: m / (1 - 0.9**3), opt_state[0].mu)
    step = jax.tree.map(lambda m, p: -1e-3 * m * p, momentum, scale)
    assert_close(step, updates, 1e-6)
    outcome = run(engine, make_problem(scale=scale))
    rows = slot_rows(make_problem())
    scaled = jax.tree.map(lambda g, p: g * jnp.sqrt(p), rows, scale)
    gram_SS = grouped_gramian(scaled, make_groups(params))[0]
    count_S = np.asarray(outcome.count_S)
    share_KS = np.array(
        [(k == ABILITY_S) / count_S[k == ABILITY_S].sum() for k in range(K)]
    )
    np.testing.assert_allclose(
        outcome.diagnostics.gram_KK, share_KS @ gram_SS @ share_KS.T, rtol=2e-5
    )


@pytest.mark.parametrize("name", ENGINES)
def test_a_slot_that_is_not_finite_is_left_out(name):
    slots = make_slots()
    bad = slots | {"weight": np.ones(slots["mask"].shape[:2], np.float32)}
    bad["weight"][4] = np.nan

    def poisoned(params, frozen, slot, handles=None):
        loss, count = loss_fn(params, frozen, slot, handles)
        return loss * jnp.mean(slot["weight"]), count

    engine = make_engine(name)
    problem = replace(make_problem(bad), loss_fn=poisoned)
    outcome = jax.jit(lambda: resolved_gradient(engine, problem, init_engine(engine)))()
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(outcome.gradient))
    np.testing.assert_array_equal(outcome.nonfinite_S, np.arange(S) == 4)
    if name != "lagged":
        kept = np.delete(np.arange(S), 4)
        few = make_problem({k: v[kept] for k, v in slots.items()}, ABILITY_S[kept])
        expected = run(make_engine("materialize"), few)
        assert_close(outcome.gradient, expected.gradient, 2e-6)


def test_accumulated_micro_batches_and_bfloat16_rows():
    problem = make_problem()
    expected = run(make_engine("materialize"), problem)
    for name in ("materialize", "accumulate"):
        outcome = run(make_engine(name, accumulate=2), problem)
        assert_close(outcome.gradient, expected.gradient, 2e-6)
        np.testing.assert_array_equal(outcome.count_S, expected.count_S)
    rough = run(make_engine("accumulate", rows_dtype="bfloat16"), problem)
    assert_close(rough.gradient, expected.gradient, 2e-2)
    assert jax.tree.leaves(rough.gradient)[0].dtype == jnp.float32
    np.testing.assert_allclose(
        rough.diagnostics.cosines_KK, expected.diagnostics.cosines_KK, atol=5e-3
    )


@pytest.mark.parametrize("name", TAPPED)
def test_a_loss_that_ignores_its_parameters_has_no_gramian(name):
    def ignores(params, frozen, slot, handles=None):
        if handles is not None:
            tiny_model.tap(params["embed"], handles["embed"])
        return jnp.sum(slot["mask"] * 1.0), jnp.sum(slot["mask"], dtype=jnp.float32)

    engine = make_engine(name)
    problem = replace(make_problem(), loss_fn=ignores)
    # Nothing depends on the taps: the Gramian is that of no gradient at all.
    outcome = resolved_gradient(engine, problem, init_engine(engine))
    assert np.isnan(outcome.diagnostics.gram_KK).all()


@pytest.mark.parametrize("name", TAPPED)
def test_no_array_holds_all_gradients(name):
    """Neither rows [S, ...] of a whole stack nor of the whole tree are ever made."""
    engine, problem = make_engine(name), make_problem()
    text = str(
        jax.make_jaxpr(
            lambda: resolved_gradient(engine, problem, init_engine(engine))
        )()
    )
    kernel = make_params()["layers"]["kernel"].shape
    shape = ",".join(map(str, (S, *kernel)))
    assert f"[{shape}]" not in text
    assert f"[{S},{kernel[1]},{kernel[2]}]" in text  # but of one layer they are
