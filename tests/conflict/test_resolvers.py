"""What holds for every resolver, and the table of what holds for which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dcft_jax.conflict import RESOLVERS
from tests.conflict.matrix_families import (
    FAMILIES,
    INDEPENDENT,
    SIZES,
    cases,
    make_rows,
    simplex,
    stationary_cases,
)
from tests.conflict.running import (
    BALANCERS,
    GOLDEN,
    coefficients,
    conflict,
    difference,
    effort,
    gramian,
    jitted,
    observed,
)

few = settings(deadline=None, max_examples=12)
many = settings(deadline=None, max_examples=40)

EVERY = sorted(RESOLVERS)
# Where the update goes like a root of the Gramian.
ROOTS = {"nash_mtl": -1 / 2, "fairgrad": -2 / 3}
# Cut off eigenvalues: near the cut, rounding decides.
SPECTRAL = ("imtl_g", "aligned_mtl", "con_fig")
# Draws depend on the place of an ability.
DRAWN = ("random", "pcgrad", "gradvac")
EQUIVARIANT = sorted({*EVERY} - {*DRAWN})
# One of each kind: draws, scans, solvers, eigenvalues, ring buffers.
MACHINERY = ("random", "gradvac", "pcd", "cagrad", "fairgrad", "imtl_g", "coba")


def for_each(*names):
    return pytest.mark.parametrize("name", names)


def spread(rows):
    norms = np.linalg.norm(rows, axis=1)
    return norms.max() / norms.min()


def options_of(name):
    """Parameters with which the last column of the table is promised."""
    return {"cagrad": {"radius": 1.0}}.get(name, {})


# ------------------------------------------------------------------------------ all


@for_each(*EVERY)
@few
@given(case=cases())
def test_finite_float32_and_zero_for_the_absent(name, case):
    rows, weights = case
    c = coefficients(name, gramian(rows), weights)
    assert c.dtype == np.float32
    assert np.all(np.isfinite(c))
    assert np.all(c[np.diagonal(gramian(rows)) == 0] == 0)


@for_each(*EVERY)
@pytest.mark.parametrize("weight", [0.7, 1.0])
def test_one_ability_keeps_its_weight(name, weight):
    c = coefficients(name, [[4.0]], [weight], exact=True)
    expected = {
        # Lengths sqrt(weight) of the update; (G c) = w c^(-1/2); mean and radius.
        "nash_mtl": np.sqrt(weight) / 2,
        "fairgrad": (weight / 4) ** (2 / 3),
        "cagrad": 1.5 * weight,
    }.get(name, weight)
    np.testing.assert_allclose(c, [expected], rtol=1e-6)


@for_each(*EVERY)
@few
@given(case=cases(), bad=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_bad_row_is_the_same_as_no_row(name, case, bad):
    rows, weights = case
    gram = gramian(rows)
    without, gram = gram.copy(), gram.copy()
    without[0, :] = without[:, 0] = 0
    gram[0, :] = gram[:, 0] = bad
    np.testing.assert_array_equal(
        coefficients(name, gram, weights), coefficients(name, without, weights)
    )


@for_each(*EQUIVARIANT)
@few
@given(case=cases(INDEPENDENT, (2, 5)))
def test_absent_rows_are_the_same_as_no_rows(name, case):
    rows, weights = case
    assume(not (name == "aligned_mtl" and spread(rows) > 30))  # see its docstring
    size = {2: 5, 5: 20}[len(rows)]
    plain = coefficients(name, gramian(rows), weights, exact=True)
    padded = np.zeros((size, size))
    padded[: len(rows), : len(rows)] = gramian(rows)
    more = np.concatenate([weights, np.full(size - len(rows), 0.1)])
    c = coefficients(name, padded, more)
    assert np.all(c[len(rows) :] == 0)
    assert difference(rows, c[: len(rows)], plain) <= 2e-5


@for_each(*EVERY)
def test_all_absent_gives_nothing(name):
    np.testing.assert_array_equal(
        coefficients(name, np.zeros((5, 5)), np.full(5, 0.2)), np.zeros(5)
    )


@for_each(*EVERY)
def test_weights_of_zero_are_fine(name):
    rows = make_rows("normal", 5, 5)
    c = coefficients(name, gramian(rows), [0.0, 0.4, 0.3, 0.0, 0.3])
    assert np.all(np.isfinite(c)) and np.linalg.norm(c @ rows) > 0
    assert np.all(np.isfinite(coefficients(name, gramian(rows), np.zeros(5))))


@for_each(*EVERY)
@few
@given(case=cases(), exponent=st.integers(-33, 33))
def test_the_scale_of_the_gramian(name, case, exponent):
    """Rows from 1e-10 to 1e10: a power of 4 only moves exponents of G and its root."""
    rows, weights = case
    plain = coefficients(name, gramian(rows), weights)
    scaled = coefficients(name, gramian(rows) * np.float32(4.0**exponent), weights)
    if name in ROOTS:
        law = (4.0**exponent) ** ROOTS[name]
        np.testing.assert_allclose(scaled, law * plain, rtol=1e-5)
    else:
        np.testing.assert_array_equal(scaled, plain)


@for_each(*EVERY)
@pytest.mark.parametrize("scale", [1e-10, 1e-3, 1e3, 1e5, 1e10, 1e15])
def test_the_scale_of_the_rows(name, scale):
    """At scales where one of TorchJD's returns the mean, or nothing."""
    for family in INDEPENDENT:
        if (name, family) == ("aligned_mtl", "scaled"):
            continue  # eigenvalues lose what the norms span: see its docstring
        rows, weights = make_rows(family, 5, 1), simplex(5, 1)
        plain = coefficients(name, gramian(rows), weights)
        scaled = coefficients(name, gramian(scale * rows), weights)
        scaled = scaled / np.float64(scale) ** (2 * ROOTS.get(name, 0))
        assert difference(rows, scaled, plain) <= 1e-5


@for_each(*EVERY)
def test_depends_on_the_rows_only_through_their_products(name):
    rows, weights = make_rows("normal", 5, 3), simplex(5, 3)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((24, 24)))[0]
    turned = coefficients(name, gramian(rows @ rotation), weights)
    np.testing.assert_allclose(
        turned, coefficients(name, gramian(rows), weights), rtol=1e-5, atol=1e-6
    )


@for_each(*EVERY)
def test_vmap_equals_a_loop(name):
    resolver, seen = RESOLVERS[name](), observed(5)
    state, weights = resolver.init(5), simplex(5, 0).astype(np.float32)
    grams = np.stack([gramian(make_rows("normal", 5, seed)) for seed in range(4)])
    batch = jax.vmap(resolver.resolve, (0, None, None, None))
    batched = batch(grams, weights, state, seen)[0]
    for gram, c in zip(grams, batched, strict=True):
        looped = coefficients(name, gram, weights)
        np.testing.assert_allclose(looped, c, rtol=2e-5, atol=1e-6)


@for_each(*MACHINERY)
def test_eager_equals_jit(name):
    resolver, weights = RESOLVERS[name](), jnp.float32(simplex(5, 0))
    gram = jnp.asarray(gramian(make_rows("normal", 5, 0)))
    c, _ = resolver.resolve(gram, weights, resolver.init(5), observed(5))
    expected = coefficients(name, gram, weights)
    np.testing.assert_allclose(c, expected, rtol=2e-5, atol=1e-6)


@for_each(*MACHINERY)
def test_works_on_replicated_values_of_an_explicit_mesh(name):
    mesh = jax.make_mesh((4, 2), ("ability", "data"))
    gram, weights = gramian(GOLDEN), np.array([0.5, 0.5], np.float32)
    resolver = RESOLVERS[name]()
    with jax.set_mesh(mesh):
        resolve = jax.jit(resolver.resolve)
        c = resolve(gram, weights, resolver.init(2), observed(2))[0]
    expected = coefficients(name, gram, weights, exact=True)
    np.testing.assert_allclose(c, expected, rtol=1e-6)


@for_each(*EVERY)
def test_the_state_keeps_its_structure_shapes_and_types(name):
    """So that it can be donated, scanned over, and restored from a checkpoint."""
    resolver = RESOLVERS[name]()
    state = resolver.init(5)
    gram, weights = gramian(make_rows("normal", 5, 0)), np.full(5, 0.2, np.float32)
    after = jitted(name)(gram, weights, state, observed(5))[1]
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)


# ------------------------------------------------------------- the table: no conflict


@for_each("mean", "pcgrad", "gradvac", "upgrad", "dualproj", "uw", "dwa", "coba")
@few
@given(seed=st.integers(0, 10_000), num_rows=st.sampled_from(SIZES))
def test_without_conflict_the_weights_come_back_bit_by_bit(name, seed, num_rows):
    rows = make_rows("aligned", num_rows, seed)
    weights = simplex(num_rows, seed).astype(np.float32)
    np.testing.assert_array_equal(coefficients(name, gramian(rows), weights), weights)


# --------------------------------------------------------- the table: non-conflicting


NON_CONFLICTING = {  # share of what goes into the update
    "upgrad": 1e-4,
    "dualproj": 1e-4,
    "mgda": 1e-4,
    "cagrad": 1e-4,
    "nash_mtl": 1e-5,
    "fairgrad": 1e-5,
}


@for_each(*NON_CONFLICTING)
@many
@given(case=cases())
def test_against_no_ability(name, case):
    rows, weights = case
    c = coefficients(name, gramian(rows), weights, **options_of(name))
    rows = rows[weights > 0]
    assert conflict(rows, c[weights > 0]) <= NON_CONFLICTING[name]


@for_each(*NON_CONFLICTING)
@few
@given(case=stationary_cases())
def test_against_no_ability_at_stationary_points(name, case):
    rows, weights = case
    c = coefficients(name, gramian(rows), weights, **options_of(name))
    assert conflict(rows, c) <= NON_CONFLICTING[name]


@for_each("con_fig", "imtl_g")
@many
@given(case=cases(("normal",), (2, 5)))
def test_independent_gradients_are_all_served(name, case):
    rows, weights = case
    c = coefficients(name, gramian(rows), weights)
    if name == "imtl_g" and np.array_equal(c, weights):
        return  # its guard: see the test of the guard
    assert conflict(rows, c) <= 1e-6


@for_each("pcgrad", "gradvac")
@many
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_projections_of_two_are_against_none(name, seed, scale):
    rows = make_rows("normal", 2, seed) * np.array([[1.0], [scale]])
    assert conflict(rows, coefficients(name, gramian(rows), [0.5, 0.5])) <= 1e-6


# ---------------------------------------------------------------- the table: linearity


@for_each("mean", "random", "pcgrad", "upgrad")
@many
@given(case=cases(), seed=st.integers(0, 1000))
def test_linear_in_positive_scales_of_the_rows(name, case, seed):
    check_linear(name, *case, seed)


@for_each("mean", "random", "pcgrad", "upgrad")
@few
@given(case=stationary_cases(), seed=st.integers(0, 1000))
def test_linear_in_positive_scales_at_stationary_points(name, case, seed):
    check_linear(name, *case, seed)


def check_linear(name, rows, weights, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0.2, 2, 2)
    one, other = 10.0 ** rng.uniform(-1, 1, (2, len(rows)))

    def scaled(scales):
        gram = gramian(rows * scales[:, None])
        return coefficients(name, gram, weights) * np.float64(scales)

    together = scaled(a * one + b * other)
    apart = a * scaled(one) + b * scaled(other)
    assert difference(rows, together, apart) <= 1e-5


# --------------------------------------------------------------- the table: directions


@for_each("nash_mtl", "con_fig", "imtl_g")
@many
@given(case=cases(("normal", "scaled"), (2, 5)), seed=st.integers(0, 1000))
def test_the_direction_does_not_depend_on_the_norms(name, case, seed):
    rows, weights = case
    scales = 10.0 ** np.random.default_rng(seed).uniform(-3, 3, len(rows))
    one = coefficients(name, gramian(rows), weights)
    other = coefficients(name, gramian(rows * scales[:, None]), weights) * scales
    if name == "imtl_g" and (
        np.array_equal(one, weights) or np.allclose(other / scales, weights, atol=0)
    ):
        return  # its guard
    one, other = np.float64(one) @ rows, np.float64(other) @ rows
    one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
    np.testing.assert_allclose(one, other, atol=2e-4)


# ---------------------------------------------------------------- the table: all equal


@for_each(*EVERY)
def test_equal_gradients_make_one(name):
    weights = [0.1, 0.2, 0.3, 0.3, 0.1]
    c = coefficients(name, np.full((5, 5), 9.0), weights)
    if name in ("fairgrad", "nash_mtl"):
        # 9 S = w_k c_k^(-1/alpha) with S the sum.
        power = {"fairgrad": 2.0, "nash_mtl": 1.0}[name]
        total = np.sum(np.power(weights, power)) ** (1 / (1 + power))
        total *= 9 ** (-power / (1 + power))
    else:
        total = {"cagrad": 1.5}.get(name, 1.0)
    np.testing.assert_allclose(c.sum(), total, rtol=1e-4)


# -------------------------------------------------------------- the table: permutation

# Of what goes into the update. The spectral ones divide by small eigenvalues.
PERMUTATION = {
    "upgrad": 1e-6,
    **dict.fromkeys(SPECTRAL, 1e-4),
}


@for_each(*EQUIVARIANT)
@few
@given(case=cases(), seed=st.integers(0, 100))
def test_permutation_equivariant(name, case, seed):
    check_equivariant(name, *case, seed)


@for_each("upgrad", "dualproj", "mgda", "cagrad", "nash_mtl", "fairgrad")
@few
@given(case=stationary_cases(), seed=st.integers(0, 100))
def test_permutation_equivariant_at_stationary_points(name, case, seed):
    check_equivariant(name, *case, seed)


def check_equivariant(name, rows, weights, seed):
    if name in BALANCERS:
        return  # losses have an order of their own: see their tests
    order, gram = np.random.default_rng(seed).permutation(len(rows)), gramian(rows)
    if name == "pcd":  # all but the one with the priority
        order = np.concatenate([[0], order[order > 0]])
    moved = coefficients(name, gram[np.ix_(order, order)], weights[order])
    back = np.empty_like(moved)
    back[order] = moved
    tolerance = PERMUTATION.get(name, 1e-5)
    assert difference(rows, back, coefficients(name, gram, weights)) <= tolerance


# ------------------------------------------------------------ the table: not negative


@for_each(*sorted({*EVERY} - {*SPECTRAL}))
@few
@given(case=cases())
def test_coefficients_are_not_negative(name, case):
    assert np.all(coefficients(name, gramian(case[0]), case[1]) >= 0)


# ------------------------------------------------------------------------------ golden


def test_golden_values():
    """TorchJD's test_values.py, halved where it sums instead of averaging."""
    half = np.array([0.5, 0.5])

    def of(name, **options):
        return coefficients(name, gramian(GOLDEN), half, exact=True, **options)

    close = {"atol": 1e-4}
    np.testing.assert_allclose(of("aligned_mtl"), [0.5591, 0.4083], **close)
    np.testing.assert_allclose(of("imtl_g"), [0.5923, 0.4077], **close)
    np.testing.assert_allclose(of("mgda"), [0.6, 0.4], atol=1e-6)
    np.testing.assert_allclose(2 * of("pcgrad"), [2.2222, 1.5789], **close)
    np.testing.assert_allclose(2 * of("gradvac"), [2.2222, 1.5789], **close)
    np.testing.assert_allclose(of("cagrad"), [0.7041, 0.5], **close)
    # Exact values, without TorchJD's ridge: [10/9, 15/19] and v_1 = 22/18 * 1/2.
    np.testing.assert_allclose(of("upgrad"), [10 / 9, 15 / 19], **close)
    np.testing.assert_allclose(of("upgrad") @ GOLDEN, [0.2925, 1.9005, 1.9005], **close)
    np.testing.assert_allclose(of("dualproj"), [11 / 18, 0.5], **close)
    np.testing.assert_allclose(
        2 * of("con_fig") @ GOLDEN, [0.1588, 2.0706, 2.0706], **close
    )
    np.testing.assert_allclose(
        of("nash_mtl") @ GOLDEN, [0.0542, 0.7061, 0.7061], **close
    )
    fair = coefficients("fairgrad", gramian(GOLDEN), [1.0, 1.0], alpha=1.0)
    np.testing.assert_allclose(fair, [0.59146, 0.40707], atol=1e-5)


# --------------------------------------------------------------------------- arguments

BAD = {
    "gradvac": [("beta", -0.1), ("beta", 1.1), ("beta", float("nan"))],
    "dualproj": [("ridge", 0.0), ("ridge", -1.0), ("ridge", 2.0)],
    "upgrad": [("ridge", 0.0), ("ridge", float("nan"))],
    "pcd": [("tau", -0.1), ("tau", 1.5), ("beta", 1.0), ("priority", -1), ("ridge", 0)],
    "cagrad": [("radius", -1.0), ("radius", float("inf")), ("radius", float("nan"))],
    "fairgrad": [("alpha", 0.0), ("alpha", -1.0), ("alpha", 100.0)],
    "imtl_g": [("least", 0.0), ("least", 1.0)],
    "aligned_mtl": [("scale", "max")],
    "famo": [("learning_rate", 0.0), ("gamma", -1.0)],
    "uw": [("learning_rate", -1.0)],
    "dwa": [("window", 0), ("window", 1.5), ("temperature", 0.0)],
    "coba": [("window", 1), ("warmup", 1), ("tau", 0.0), ("window", 2.5)],
}


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [(name, *bad) for name, all_bad in BAD.items() for bad in all_bad],
)
def test_a_bad_argument_is_named(name, argument, value):
    with pytest.raises(ValueError, match=f"{name}: {argument} is .*expected"):
        RESOLVERS[name](**{argument: value})


def test_pcd_refuses_a_priority_that_is_no_ability():
    with pytest.raises(ValueError, match=r"priority is 3, .* 3 abilities"):
        RESOLVERS["pcd"](priority=3).init(3)


def test_every_family_has_what_its_name_says():
    """The table would say little over rows that are all alike."""
    rows = {family: make_rows(family, 5, 3) for family in FAMILIES}
    assert np.linalg.matrix_rank(rows["low_rank"]) < 5
    assert np.all(rows["aligned"] >= 0)
    np.testing.assert_allclose(rows["stationary"].sum(axis=0), 0, atol=1e-12)
    assert spread(rows["scaled"]) > 1e2
    assert effort(rows["absent"], np.ones(5)) < effort(rows["normal"], np.ones(5)) * 2
