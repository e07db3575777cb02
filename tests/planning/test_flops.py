"""Counted operations against closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P

from dcft_jax.models import ModelConfig
from dcft_jax.planning.flops import count_flops
from dcft_jax.planning.plan import plain_flops
from dcft_jax.sharding import make_mesh
from tests.planning.conftest import small_config


def flops_of(function, *shapes) -> int:
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return count_flops(jax.make_jaxpr(function)(*arrays))


def closed_form(model: ModelConfig, num_rows: int, length: int) -> int:
    """Of a forward and a backward pass: 6 for each weight and token, and attention."""
    D, C, H, G = model.width, model.head_dim, model.num_heads, model.num_kv_heads
    layer = 2 * D * H * C + 2 * D * G * C + 3 * D * model.hidden
    weights = model.num_layers * layer + D * model.vocab_size
    attention = 2 * model.num_layers * length * H * C  # scores and their values
    return 3 * 2 * num_rows * length * (weights + attention)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_plain_training_is_six_operations_for_each_weight_and_token(num_layers: int):
    config = small_config()
    model = ModelConfig.from_config(config.model, 512, config.mesh.rules)
    model = dataclasses.replace(model, num_layers=num_layers)
    rows = config.data.num_slots * config.data.rows_per_slot
    counted = plain_flops(config, model, None)
    assert counted == closed_form(model, rows, config.data.seq_len)


def test_a_loop_counts_as_often_as_it_runs():
    def repeated(x, w):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, length=7)[0]

    assert flops_of(repeated, (3, 5), (5, 5)) == 7 * 2 * 3 * 5 * 5


def test_batched_products_and_calls_inside_calls():
    product = jax.jit(jax.vmap(lambda x, y: jnp.einsum("ij,kj->ik", x, y)))
    assert flops_of(product, (4, 3, 5), (4, 6, 5)) == 4 * 2 * 3 * 5 * 6


def test_of_two_branches_the_larger_counts():
    def either(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x)

    assert flops_of(either, (3, 5), (5, 5)) == 2 * 3 * 5 * 5


def test_recomputation_counts():
    def loss(x, w):
        return jnp.sum(jnp.sin(jnp.sin(x @ w) @ w))

    plain = flops_of(jax.grad(loss), (3, 5), (5, 5))
    again = flops_of(jax.grad(jax.checkpoint(loss)), (3, 5), (5, 5))
    assert again - plain == 2 * 2 * 3 * 5 * 5


def test_shapes_of_one_device_count_for_all():
    mesh = make_mesh(dict(ability=1, data=8, model=1))

    def everywhere(x, w):
        x, w = jax.reshard((x, w), (P("data", None), P(None, None)))
        return jax.shard_map(
            lambda x, w: x @ w,
            mesh=mesh,
            in_specs=(P("data", None), P(None, None)),
            out_specs=P("data", None),
        )(x, w)

    with jax.set_mesh(mesh):
        assert flops_of(everywhere, (16, 5), (5, 6)) == 2 * 16 * 5 * 6


def test_a_kernel_counts_once_for_each_block_of_its_grid():
    def kernel(x, w, out):
        out[...] = x[...] @ w[...]

    def blocked(x, w):
        return pl.pallas_call(
            kernel,
            grid=(3, 2),
            in_specs=[
                pl.BlockSpec((8, 16), lambda i, j: (i, 0)),
                pl.BlockSpec((16, 8), lambda i, j: (0, j)),
            ],
            out_specs=pl.BlockSpec((8, 8), lambda i, j: (i, j)),
            out_shape=jax.ShapeDtypeStruct((24, 16), jnp.float32),
        )(x, w)

    assert flops_of(blocked, (24, 16), (16, 16)) == 2 * 24 * 16 * 16
