"""Gramian and combination against float64, plain and on meshes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.conflict import (
    combine,
    cosine_gramian,
    grouped_gramian,
    make_groups,
    slot_gramian,
    spread_slots,
)

MESHES = [(4, 2, 1), (2, 2, 2), (8, 1, 1), (1, 4, 2)]
SPECS = {
    "embed": ((16, 24), ("data", "model")),
    "mlp": ((3, 8, 12), (None, "data", "model")),
    "norm": ((5,), (None,)),  # no dimension divides: falls back to replication
    "bias": ((8,), ("model",)),
    "scalar": ((), ()),
}


def random_tree(num_slots, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal((num_slots, *shape)) + 0.3).astype(dtype)
        for name, (shape, _) in SPECS.items()
    }


def gramian64(tree):
    flat = np.concatenate(
        [np.reshape(g, (len(g), -1)).astype(np.float64) for g in tree.values()], axis=1
    )
    return flat @ flat.T


def place(tree, mesh):
    return {
        name: jax.device_put(
            g, jax.NamedSharding(mesh, jax.P("ability", *SPECS[name][1]))
        )
        for name, g in tree.items()
    }


def make_mesh(shape, axis_type=jax.sharding.AxisType.Explicit):
    return jax.make_mesh(shape, ("ability", "data", "model"), (axis_type,) * 3)


@pytest.mark.parametrize("num_slots", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(10_000_019,), (13, 997, 773), (2, 5_000_000)])
@pytest.mark.slow
def test_gramian_of_1e7_elements_matches_float64(num_slots, shape):
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((num_slots, *shape), dtype=np.float32) + 0.1
    expected = np.zeros((num_slots, num_slots))
    for block in np.array_split(rows.reshape(num_slots, -1), 16, axis=1):
        expected += block.astype(np.float64) @ block.astype(np.float64).T
    actual = jax.jit(slot_gramian)({"w": rows})
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("num_slots", [2, 3])
def test_gramian_of_1e8_elements_is_right_to_1e5(num_slots):
    """A plain float32 contraction of this length loses digits on CPU."""
    rng = np.random.default_rng(1)
    shape = (num_slots, 10_000, 10_000)
    rows = rng.random(shape, dtype=np.float32) - np.float32(0.45)
    expected = np.zeros((num_slots, num_slots))
    for block in np.array_split(rows.reshape(num_slots, -1), 100, axis=1):
        expected += block.astype(np.float64) @ block.astype(np.float64).T
    actual = jax.jit(slot_gramian)({"w": rows})
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("num_slots", [1, 2, 3])
def test_gramian_in_a_metric_and_per_group(num_slots):
    tree = random_tree(num_slots)
    rng = np.random.default_rng(3)
    scale = {
        name: rng.random(g.shape[1:]).astype(np.float32) for name, g in tree.items()
    }
    groups = make_groups({n: x[0] for n, x in tree.items()}, "block", ("mlp",))
    assert groups.names == (
        "bias",
        "embed",
        "mlp.0",
        "mlp.1",
        "mlp.2",
        "norm",
        "scalar",
    )
    gram = jax.jit(lambda g, s: grouped_gramian(g, groups, s))(tree, scale)
    parts = {n: g * np.sqrt(scale[n]) for n, g in tree.items()}
    expected = gramian64({"layer": parts["mlp"][:, 1]})
    np.testing.assert_allclose(gram[3], expected, rtol=1e-5)
    np.testing.assert_allclose(gram.sum(0), gramian64(parts), rtol=1e-5)
    coefficients = rng.random((7, num_slots)).astype(np.float32)
    update = combine(tree, coefficients, groups)
    wanted = np.einsum("ns,snij->nij", coefficients[2:5], tree["mlp"])
    np.testing.assert_allclose(update["mlp"], wanted, rtol=1e-5, atol=1e-6)
    wanted = np.einsum("s,sij->ij", coefficients[1], tree["embed"])
    np.testing.assert_allclose(update["embed"], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", MESHES)
def test_metric_and_groups_on_a_mesh(shape):
    mesh, tree = make_mesh(shape), random_tree(8)
    rng = np.random.default_rng(3)
    scale = {
        name: rng.random(g.shape[1:]).astype(np.float32) for name, g in tree.items()
    }
    groups = make_groups({n: x[0] for n, x in tree.items()}, "matrix", ("mlp",))
    plain = grouped_gramian(tree, groups, scale)
    with jax.set_mesh(mesh):
        placed = {
            n: jax.device_put(x, jax.NamedSharding(mesh, jax.P(*SPECS[n][1])))
            for n, x in scale.items()
        }
        step = jax.jit(lambda g, s: grouped_gramian(g, groups, s))
        gram = step(place(tree, mesh), placed)
    # Relative to the lengths: a product may be the small difference of large sums.
    norms_GS = np.sqrt(np.diagonal(plain, axis1=1, axis2=2))
    unit_GSS = norms_GS[:, :, None] * norms_GS[:, None]
    np.testing.assert_allclose(gram / unit_GSS, plain / unit_GSS, atol=1e-6)


def test_unknown_granularity_is_refused():
    with pytest.raises(ValueError, match="'layer', expected one of"):
        make_groups({"a": np.ones(2)}, "layer")


@pytest.mark.parametrize(
    "shape", [(200_003,), (3, 70_000), (5, 7, 9_001), (2, 3, 5, 3_000), (0,), (1,)]
)
def test_every_element_is_in_exactly_one_chunk(shape):
    rows = np.random.default_rng(2).standard_normal((3, *shape)).astype(np.float32)
    expected = gramian64({"w": rows})
    np.testing.assert_allclose(
        slot_gramian({"w": rows}), expected, rtol=1e-5, atol=1e-6 * expected.max()
    )


def test_bfloat16_rows_are_accumulated_in_float32():
    rows = jnp.asarray(random_tree(3)["mlp"], jnp.bfloat16)
    rows = jnp.tile(rows, (1, 1, 64, 64))
    gram = slot_gramian([rows])
    assert gram.dtype == jnp.float32
    expected = gramian64({"w": np.asarray(rows.astype(jnp.float32))})
    np.testing.assert_allclose(gram, expected, rtol=1e-5)


def test_a_bad_slot_spoils_its_own_row_only():
    tree = random_tree(3)
    tree["mlp"][1, 0, 0, 0] = np.nan
    finite = np.isfinite(slot_gramian(tree))
    np.testing.assert_array_equal(
        finite, [[True, False, True], [False] * 3, [True, False, True]]
    )


@pytest.mark.parametrize("shape", MESHES)
@pytest.mark.parametrize("jit", [True, False])
def test_sharded_equals_float64(shape, jit):
    mesh, tree = make_mesh(shape), random_tree(8)
    coefficients = np.linspace(-1, 2, 8).astype(np.float32)

    def both(grads, c):
        return slot_gramian(grads), combine(grads, c)

    with jax.set_mesh(mesh):
        gram, update = (jax.jit(both) if jit else both)(place(tree, mesh), coefficients)
    expected = gramian64(tree)
    assert np.abs(gram / expected - 1).max() < 1e-6
    assert gram.sharding.is_fully_replicated
    for name, g in tree.items():
        wanted = np.tensordot(coefficients.astype(np.float64), g.astype(np.float64), 1)
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(update[name], wanted, atol=1e-6 * scale, rtol=0)


def test_works_on_typed_gradients_under_vmap():
    mesh = make_mesh((2, 2, 2))
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((8, 4)).astype(np.float32)
    inputs = rng.standard_normal((4, 6, 8)).astype(np.float32)

    def loss(w, x_BD):
        h_BF = jnp.einsum("bd,df->bf", x_BD, w, out_sharding=jax.P("data", "model"))
        return jnp.sum(jnp.tanh(h_BF) ** 2)

    def step(w, x_SBD):
        grads_S = jax.vmap(jax.grad(loss), (None, 0))(w, x_SBD)
        assert jax.typeof(grads_S).sharding.spec == jax.P("ability", "data", "model")
        return slot_gramian(grads_S), combine(grads_S, jnp.ones(4))

    with jax.set_mesh(mesh):
        w = jax.device_put(weight, jax.P("data", "model"))
        x = jax.device_put(inputs, jax.P("ability", "data", None))
        gram, update = jax.jit(step)(w, x)
    plain_S = jnp.stack([jax.grad(plain_loss)(weight, x) for x in inputs])
    np.testing.assert_allclose(gram, slot_gramian(plain_S), rtol=2e-6)
    np.testing.assert_allclose(update, plain_S.sum(0), rtol=2e-5, atol=1e-5)


def plain_loss(w, x_BD):
    return jnp.sum(jnp.tanh(x_BD @ w) ** 2)


def test_automatic_axes_work_too():
    mesh, tree = make_mesh((2, 2, 2), jax.sharding.AxisType.Auto), random_tree(8)
    with jax.set_mesh(mesh):
        gram = jax.jit(slot_gramian)(place(tree, mesh))
    np.testing.assert_allclose(gram, gramian64(tree), rtol=1e-6)


def test_spread_moves_the_slot_axis_and_is_idempotent():
    mesh, tree = make_mesh((2, 2, 2)), random_tree(8)
    with jax.set_mesh(mesh):
        spread = spread_slots(place(tree, mesh))
        again = spread_slots(spread)
    specs = {name: jax.typeof(g).sharding.spec for name, g in spread.items()}
    assert specs["embed"] == jax.P(None, "data", ("model", "ability"))
    assert specs["mlp"] == jax.P(None, None, "data", ("model", "ability"))
    assert specs["norm"] == jax.P(None, None)
    assert specs["bias"] == jax.P(None, ("model", "ability"))
    assert all(again[name] is spread[name] for name in spread)
    for name, g in tree.items():
        np.testing.assert_array_equal(spread[name], g)


def test_the_gramian_of_spread_slots_has_one_small_collective():
    mesh, tree = make_mesh((4, 2, 1)), random_tree(8)
    with jax.set_mesh(mesh):
        spread = spread_slots(place(tree, mesh))
        text = jax.jit(slot_gramian).lower(spread).compile().as_text()
    collectives = ("all-reduce(", "all-gather(", "all-to-all(", "collective-permute(")
    assert [text.count(name) for name in collectives] == [1, 0, 0, 0]
    line = next(line for line in text.splitlines() if "all-reduce(" in line)
    assert "f32[1,8,8]" in line  # one group


def test_combine_leaves_out_masked_slots_and_keeps_the_dtype():
    rows = jnp.array([[1.0, 2.0], [np.nan, np.inf], [3.0, 5.0]], jnp.bfloat16)
    update = combine(rows, jnp.array([2.0, 0.0, 1.0]))
    assert update.dtype == jnp.bfloat16
    np.testing.assert_array_equal(update.astype(jnp.float32), [5.0, 9.0])


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_cosines_survive_small_and_large_norms(scale):
    rows = np.array([[3.0, 4.0], [-4e-3, 3e-3], [0.0, 0.0]], np.float32) * scale
    cosines, norms, present = cosine_gramian(jnp.asarray(rows @ rows.T))
    np.testing.assert_allclose(cosines, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(norms, [1.0, 1e-3, 1.0], rtol=1e-5)
    np.testing.assert_array_equal(present, [True, True, False])


@pytest.mark.parametrize(
    "grads", [{}, {"a": np.ones((2, 3)), "b": np.ones((3, 3))}, {"a": np.float32(1)}]
)
def test_bad_trees_are_refused(grads):
    with pytest.raises(ValueError, match="leading"):
        slot_gramian(grads)


def test_wrong_number_of_coefficients_is_refused():
    with pytest.raises(ValueError, match="one coefficient per slot"):
        combine(np.ones((2, 3)), jnp.ones(3))
