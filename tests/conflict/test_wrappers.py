"""Wrappers against computations by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from dcft_jax.conflict import (
    RESOLVERS,
    Observation,
    Resolver,
    ema_weights,
    every_n,
    margin,
    match_mean_norm,
    noise_gate,
)
from tests.conflict.matrix_families import cases, make_rows, simplex
from tests.conflict.running import GOLDEN, difference, gramian, jitted

many = settings(deadline=None, max_examples=30)
pcgrad, upgrad, dualproj = (RESOLVERS[n] for n in ("pcgrad", "upgrad", "dualproj"))

GRAM = np.eye(2, dtype=np.float32)
WITHOUT_SECOND = np.diag([1.0, 0.0]).astype(np.float32)
HALF = np.array([0.5, 0.5], np.float32)


def scripted(*rows):
    """Coefficients in proportion to the weights, by a row for each step; counts."""
    table = jnp.array(rows, jnp.float32)

    def resolve(gram_KK, weights_K, state, observation=None):
        factor_K = table[state % len(table)]
        present_K = jnp.diagonal(gram_KK) > 0
        return jnp.where(present_K, factor_K * weights_K, 0.0), state + 1

    return Resolver(lambda num_abilities: jnp.zeros((), jnp.int32), resolve)


def run(resolver, steps):
    """Coefficients of each (gram, weights) in turn, and the last state."""
    state, resolve, seen = (
        resolver.init(len(steps[0][1])),
        jax.jit(resolver.resolve),
        [],
    )
    for gram, weights in steps:
        c, state = resolve(gram, np.asarray(weights, np.float32), state)
        seen.append(np.asarray(c))
    return seen, state


# ------------------------------------------------------------------------- ema_weights


def test_ema_by_hand():
    inner = scripted([1, 1], [3, 1], [5, 2])
    seen, state = run(ema_weights(inner, 0.75), [(GRAM, HALF)] * 3)
    np.testing.assert_allclose(seen[0], [0.5, 0.5])
    np.testing.assert_allclose(seen[1], [0.75 * 0.5 + 0.25 * 1.5, 0.5])
    np.testing.assert_allclose(seen[2], [0.75 * 0.75 + 0.25 * 2.5, 0.75 * 0.5 + 0.25])
    assert int(state.inner) == 3


def test_ema_of_the_absent_waits_and_starts_late():
    inner = scripted([1, 9], [3, 5], [3, 9], [1, 1])
    steps = [(WITHOUT_SECOND, HALF), (GRAM, HALF), (WITHOUT_SECOND, HALF), (GRAM, HALF)]
    seen, _ = run(ema_weights(inner, 0.5), steps)
    assert [c[1] for c in seen] == [0, 2.5, 0, 0.5 * 2.5 + 0.5 * 0.5]
    assert seen[2][0] == 0.5 * (0.5 * 0.5 + 0.5 * 1.5) + 0.5 * 1.5


def test_ema_without_decay_is_the_resolver_and_keeps_constants_bit_by_bit():
    rows, weights = make_rows("stationary", 5, 0), simplex(5, 0).astype(np.float32)
    steps = [(gramian(rows), weights)] * 4
    bare, _ = run(pcgrad(), steps)
    wrapped, _ = run(ema_weights(pcgrad(), 0.0), steps)
    np.testing.assert_allclose(wrapped, bare, rtol=1e-6)
    constant, _ = run(ema_weights(RESOLVERS["mean"](), 0.9), steps)
    np.testing.assert_array_equal(constant, [weights] * 4)


def test_ema_does_not_carry_over_what_a_vanishing_gradient_needed():
    usual, vanished = ([[a, 0.0], [1, 0.1]] for a in (1.0, -1e-4))
    grams = [gramian(np.float32(rows)) for rows in [usual] * 20 + [vanished, usual]]
    for name in ("pcgrad", "upgrad", "dualproj", "cagrad", "nash_mtl"):
        seen, _ = run(ema_weights(RESOLVERS[name](), 0.9), [(g, HALF) for g in grams])
        # In the step itself at most (1 - decay) * limit = 1 more.
        assert np.max(np.abs(seen[-1] - seen[19])) <= 1.0, name
        assert np.max(np.abs(seen[-2])) <= np.max(np.abs(seen[19])) + 1.0


# ----------------------------------------------------------------------------- every_n


def test_every_n_by_hand():
    inner = scripted([2, 1], [7, 3])
    moving = [HALF, [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]]
    seen, state = run(every_n(inner, 3), [(GRAM, w) for w in moving])
    np.testing.assert_allclose(seen, [[1, 0.5], [0.8, 0.6], [0.6, 0.7], [1.4, 2.4]])
    assert int(state.inner) == 2  # the inner one saw steps 0 and 3


def test_every_n_with_absences():
    inner = scripted([2, 1])
    grams = [WITHOUT_SECOND, GRAM, WITHOUT_SECOND, GRAM]
    seen, _ = run(every_n(inner, 3), [(g, HALF) for g in grams])
    # The absent one comes back with the ratio of the others, until it is resolved.
    np.testing.assert_allclose(seen, [[1, 0], [1, 1], [1, 0], [1, 0.5]])


def test_every_step_is_the_resolver():
    steps = [(gramian(make_rows("normal", 5, s)), simplex(5, s)) for s in range(3)]
    np.testing.assert_array_equal(
        run(every_n(pcgrad(), 1), steps)[0], run(pcgrad(), steps)[0]
    )


# ------------------------------------------------------------------ noise_gate, margin


def gated(resolver, gram, stderr, weights):
    seen = Observation(stderr_KK=jnp.asarray(stderr, jnp.float32))
    state = resolver.init(len(weights))
    gram, weights = np.float32(gram), np.float32(weights)
    return np.asarray(compiled(resolver)(gram, weights, state, seen)[0])


@functools.cache
def compiled(resolver):
    return jax.jit(resolver.resolve)


CLOSED, OPEN = noise_gate(pcgrad()), noise_gate(pcgrad(), 0.0)
GATED = noise_gate(upgrad(), 2.0)


def upgraded(gram, weights):
    return jitted("upgrad")(np.float32(gram), np.float32(weights), ())[0]


def test_a_conflict_within_the_noise_does_not_count():
    gram = gramian(GOLDEN)  # the product is -22
    np.testing.assert_array_equal(
        gated(GATED, gram, np.full((2, 2), 11.01), HALF), HALF
    )
    np.testing.assert_array_equal(
        gated(GATED, gram, np.full((2, 2), np.nan), HALF), HALF
    )
    c = gated(GATED, gram, np.full((2, 2), 10.9), HALF)
    np.testing.assert_allclose(c, upgraded(gram, HALF), rtol=1e-6)


def test_of_two_conflicts_only_the_significant_one_is_seen():
    gram = np.array([[1, -0.5, -0.1], [-0.5, 1, 0.2], [-0.1, 0.2, 1]], np.float32)
    without, weights = gram.copy(), np.full(3, 1 / 3, np.float32)
    without[0, 2] = without[2, 0] = 0
    c = gated(GATED, gram, np.full((3, 3), 0.1), weights)
    expected = upgraded(without, weights)
    np.testing.assert_allclose(c, expected, rtol=1e-6)
    assert np.abs(c - upgraded(gram, weights)).max() > 1e-3


def test_a_gated_gramian_stays_one_of_vectors():
    """Without its third product this one would have a negative eigenvalue."""
    gram = np.array([[1, -0.9, 0.9], [-0.9, 1, -0.7], [0.9, -0.7, 1]], np.float32)
    seen = []

    def resolve(gram_KK, weights_K, state, observation=None):
        seen.append(np.asarray(gram_KK))
        return weights_K * 2, state

    stderr = np.full((3, 3), 0.1)
    stderr[1, 2] = stderr[2, 1] = 1.0
    inner = Resolver(lambda num_abilities: (), resolve)
    c, _ = noise_gate(inner).resolve(
        jnp.asarray(gram),
        jnp.full(3, 1 / 3),
        (),
        Observation(stderr_KK=jnp.float32(stderr)),
    )
    (inside,) = seen
    zeroed = gram.copy()
    zeroed[1, 2] = zeroed[2, 1] = 0
    assert np.linalg.eigvalsh(zeroed)[0] < -0.1
    assert np.linalg.eigvalsh(inside)[0] > -1e-6
    np.testing.assert_array_equal(np.sign(inside), np.sign(zeroed))
    np.testing.assert_array_equal(np.diagonal(inside), 1)
    ratio = inside[0, 1] / gram[0, 1]
    np.testing.assert_allclose(inside[0, 2] / gram[0, 2], ratio, rtol=1e-6)
    np.testing.assert_allclose(c, 2 / 3, rtol=1e-6)


@many
@given(case=cases(sizes=(5,)))
def test_gates_that_let_all_or_nothing_pass(case):
    rows, weights = case
    gram, size = gramian(rows), len(rows)
    present = np.diagonal(gram) > 0
    closed = gated(CLOSED, gram, np.full((size, size), 1e30), weights)
    np.testing.assert_array_equal(closed, np.where(present, weights, 0))
    opened = gated(OPEN, gram, np.ones((size, size)), weights)
    bare = jitted("pcgrad")(gram, weights, pcgrad().init(size))[0]
    np.testing.assert_allclose(opened, bare, rtol=1e-6)


def test_an_absent_ability_does_not_spoil_the_gate():
    gram = np.full((3, 3), np.nan, np.float32)
    gram[:2, :2] = gramian(GOLDEN)
    stderr = np.full((3, 3), np.nan)
    stderr[:2, :2] = 1.0
    c = gated(GATED, gram, stderr, [0.5, 0.5, 0.5])
    expected = upgraded(gramian(GOLDEN), HALF)
    np.testing.assert_allclose(c, [*expected, 0], rtol=1e-6)


@pytest.mark.parametrize(("cosine", "acts"), [(0.4, True), (0.6, False)])
def test_margin(cosine, acts):
    gram = np.array([[1, -50], [-50, 1e4]], np.float32)  # a cosine of -0.5
    c, _ = jax.jit(margin(upgrad(), cosine).resolve)(gram, HALF, ())
    if acts:
        np.testing.assert_allclose(c, upgraded(gram, HALF), rtol=1e-6)
    else:
        np.testing.assert_array_equal(c, HALF)


def test_a_closed_gate_gives_the_weights_whatever_the_resolver():
    for name in ("mgda", "nash_mtl", "cagrad"):
        c, _ = margin(RESOLVERS[name]()).resolve(GRAM, HALF, ())
        np.testing.assert_array_equal(c, HALF)


# --------------------------------------------------------------------- match_mean_norm


@functools.cache
def matched(name):
    return jax.jit(match_mean_norm(RESOLVERS[name]()).resolve)


@pytest.mark.parametrize("name", ["nash_mtl", "cagrad", "upgrad", "mgda", "imtl_g"])
@many
@given(case=cases(("normal", "scaled", "aligned"), (5,)))
def test_the_update_gets_the_length_of_the_mean(name, case):
    rows, weights = case
    c = matched(name)(gramian(rows), weights, ())[0]
    bare = jitted(name)(gramian(rows), weights, ())[0]
    size, mean = np.linalg.norm(c @ rows), np.linalg.norm(weights @ rows)
    np.testing.assert_allclose(size, mean, rtol=1e-3)
    np.testing.assert_allclose(c / np.max(c), bare / np.max(bare), rtol=1e-5)


def test_the_mean_keeps_its_norm_bit_by_bit():
    rows, weights = make_rows("normal", 5, 0), simplex(5, 0).astype(np.float32)
    c, _ = match_mean_norm(RESOLVERS["mean"]()).resolve(gramian(rows), weights, ())
    np.testing.assert_array_equal(c, weights)


def test_an_update_of_nothing_is_left_alone():
    opposite = np.array([[1, -1], [-1, 1]], np.float32)
    inner = RESOLVERS["mgda"]()
    c, _ = match_mean_norm(inner).resolve(opposite, np.float32([0.7, 0.3]), ())
    assert np.all(np.isfinite(c))
    np.testing.assert_array_equal(
        c, inner.resolve(opposite, np.float32([0.7, 0.3]), ())[0]
    )


# ---------------------------------------------------------------------------- together


def test_wrappers_nest_and_pass_on_what_is_observed():
    inner = RESOLVERS["famo"]()
    resolver = match_mean_norm(every_n(ema_weights(noise_gate(inner), 0.5), 2))
    seen = Observation(
        loss_K=jnp.array([1.0, 2.0]), stderr_KK=jnp.zeros((2, 2), jnp.float32)
    )
    state = resolver.init(2)
    resolve = jax.jit(resolver.resolve)
    for _ in range(3):
        c, after = resolve(gramian(GOLDEN), HALF, state, seen)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        state = after
    assert np.all(np.isfinite(c))
    np.testing.assert_array_equal(state.inner.inner.loss_K, [1, 2])
    batched = jax.vmap(resolver.resolve, (0, None, None, None))
    rows = batched(jnp.stack([gramian(GOLDEN)] * 2), HALF, state, seen)[0]
    np.testing.assert_array_equal(rows[0], rows[1])


def test_wrapped_resolvers_do_not_care_about_the_scale():
    rows, weights = make_rows("normal", 5, 2), simplex(5, 2).astype(np.float32)
    for wrap in (margin, match_mean_norm, lambda r: every_n(r, 2), ema_weights):
        resolver = wrap(dualproj())
        one, _ = run(resolver, [(gramian(rows), weights)] * 2)
        other, _ = run(resolver, [(gramian(1e12 * rows), weights)] * 2)
        assert difference(rows, other[1], one[1]) <= 1e-5


def test_a_missing_observation_names_the_way_out():
    with pytest.raises(ValueError, match=r"noise_gate: observation\.stderr_KK is None"):
        noise_gate(dualproj()).resolve(GRAM, HALF, ())


@pytest.mark.parametrize(
    ("wrap", "argument", "value"),
    [
        (ema_weights, "decay", 1.0),
        (ema_weights, "decay", -0.1),
        (ema_weights, "limit", 0.5),
        (every_n, "n", 0),
        (every_n, "n", 1.5),
        (noise_gate, "z", -1.0),
        (noise_gate, "z", float("nan")),
        (margin, "cosine", 1.1),
        (margin, "cosine", -0.1),
    ],
)
def test_a_bad_argument_is_named(wrap, argument, value):
    with pytest.raises(ValueError, match=f"{argument} is .*expected"):
        wrap(dualproj(), **{argument: value})
