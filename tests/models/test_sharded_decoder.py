"""The decoder on explicit meshes equals the decoder on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from configs import base
from dcft_jax import sharding
from dcft_jax.models import ModelConfig, apply, init, token_correct, token_nll
from tests.models.tiny_decoder import TINY, V

EVERYTHING = dict(
    num_layers=3,
    norm_offset=1.0,
    post_norms=True,
    qk_norm=True,
    qkv_bias=True,
    attention_softcap=5.0,
    logits_softcap=3.0,
    sliding_window=3,
    global_every=2,
    local_rope_theta=100.0,
    scale_embeddings=True,
    tie_embeddings=False,
    remat="dots",
)


def make(kv_heads="model", **fields) -> ModelConfig:
    config = base.get_config()
    config.model.update({**TINY, **fields})
    rules = dict(config.mesh.rules, kv_heads=kv_heads)
    return ModelConfig.from_config(config.model, V, rules)


def make_batch():
    rng = np.random.default_rng(0)
    tokens_SBL = rng.integers(0, V, (4, 2, 6)).astype(np.int32)
    row = np.array([1, 1, 1, 2, 2, 0], np.int32)
    positions = np.array([0, 1, 2, 0, 1, 0], np.int32)
    shape = tokens_SBL.shape
    return dict(
        tokens=tokens_SBL,
        segments=np.broadcast_to(row, shape).copy(),
        positions=np.broadcast_to(positions, shape).copy(),
    )


def slot_gradients(config, params, batch):
    """Loss and gradient of every slot."""

    def loss(params, slot):
        logits_BLV = apply(
            config, params, slot["tokens"], slot["segments"], slot["positions"]
        )
        right_BL = token_correct(logits_BLV, slot["tokens"])
        return token_nll(logits_BLV, slot["tokens"]).sum(), right_BL.sum()

    grad = jax.value_and_grad(loss, has_aux=True)
    return jax.vmap(grad, in_axes=(None, 0))(params, batch)


def assert_close(got, expected):
    """Equal to 1e-5 of each array's largest entry.

    Not entry by entry: the gradients are sums with cancellation, whose small entries
    carry the rounding of the large ones (either side is about 3e-6 from float64).
    """
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


CASES = {
    "llama": (dict(), dict(ability=2, data=2, model=2)),
    "everything": (EVERYTHING, dict(ability=2, data=2, model=2)),
    "repeated_kv": (dict(kv_heads=None), dict(ability=1, data=2, model=4)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_sharded_equals_unsharded(case):
    fields, sizes = CASES[case]
    config, batch = make(**fields), make_batch()
    gradients = jax.jit(slot_gradients, static_argnums=0)
    expected = gradients(config, init(config, jax.random.key(0)), batch)
    mesh = sharding.make_mesh(sizes, jax.devices()[:8])
    with jax.set_mesh(mesh):
        params = init(config, jax.random.key(0))
        placed = sharding.place(batch, mesh, config.rules)
        got = gradients(config, params, placed)
    assert_close(got, expected)


def contract(config, mesh):
    """Types of parameters and slot gradients, by tracing alone."""
    shape = jax.ShapeDtypeStruct((4, 2, 6), jnp.int32)
    with jax.sharding.use_abstract_mesh(mesh):
        params = jax.eval_shape(lambda: init(config, jax.random.key(0)))
        spec = sharding.logical_to_spec(config.rules, ("slot", "batch", None))

        def step(params, tokens_SBL):
            tokens_SBL = jax.sharding.reshard(tokens_SBL, spec)
            batch = dict.fromkeys(("tokens", "segments", "positions"), tokens_SBL)
            return slot_gradients(config, params, batch)[1]

        return params, jax.eval_shape(step, params, shape)


@pytest.mark.parametrize(
    ("fields", "model"),
    [(dict(), 2), (EVERYTHING, 2), (dict(kv_heads=None), 2), (dict(num_kv_heads=1), 1)],
)
def test_gradients_are_typed_like_the_parameters(fields, model):
    mesh = sharding.abstract_mesh(dict(ability=2, data=2, model=model), 4 * model)
    params, grads_S = contract(make(**fields), mesh)
    paired = zip(jax.tree.leaves(params), jax.tree.leaves(grads_S), strict=True)
    for param, grad in paired:
        assert grad.dtype == jnp.float32
        assert grad.shape == (4, *param.shape)
        assert grad.sharding.spec == P("ability", *param.sharding.spec)
    embedding = params["embed"]["embedding"]
    assert embedding.sharding.spec == P("model", "data")


def test_init_places_every_shard_and_nothing_whole():
    config = make(width=32, hidden=64)
    mesh = sharding.make_mesh(dict(ability=2, data=2, model=2), jax.devices()[:8])
    with jax.set_mesh(mesh):
        lowered = init.lower(config, jax.random.key(0))
        params = init(config, jax.random.key(0))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if jax.tree_util.keystr(path).endswith("['scale']"):
            assert leaf.sharding.is_fully_replicated
        else:
            assert leaf.addressable_shards[0].data.size == leaf.size // 4, path
    whole = f"f32[2,{config.width},{config.hidden}]"
    part = f"f32[2,{config.width // 2},{config.hidden // 2}]"
    program = lowered.compile().as_text()
    assert part in program
    assert whole not in program
    assert_close(params, init(config, jax.random.key(0)))


def test_init_refuses_a_mesh_that_does_not_fit():
    mesh = sharding.make_mesh(dict(ability=2, data=1, model=4), jax.devices()[:8])
    with (
        jax.set_mesh(mesh),
        pytest.raises(ValueError, match=r"model\.num_kv_heads.*mesh\.model = 4"),
    ):
        init(make(), jax.random.key(0))


def test_a_mesh_of_automatic_axes_works_too():
    config, batch = make(), make_batch()
    tokens_BL = jnp.asarray(batch["tokens"][0])
    expected = apply(config, init(config, jax.random.key(0)), tokens_BL)
    kinds = (jax.sharding.AxisType.Auto,) * 4
    mesh = jax.make_mesh((1, 1, 2, 2), sharding.AXES, kinds, devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        params = init(config, jax.random.key(0))
        got = jax.jit(apply, static_argnums=0)(config, params, tokens_BL)
    np.testing.assert_allclose(got, expected, atol=1e-5)
