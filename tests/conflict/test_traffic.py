"""What resolving conflicts adds to the traffic between devices, from the program."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax import sharding
from dcft_jax.conflict import (
    RESOLVERS,
    Engine,
    Problem,
    init_engine,
    make_groups,
    resolved_gradient,
)
from dcft_jax.models import STACKED, ModelConfig, init
from dcft_jax.planning.traffic import REDUCING, bytes_by_kind
from dcft_jax.training.step import slot_loss

K, B, L = 4, 8, 16


def model() -> ModelConfig:
    from configs import base

    config = base.get_config()
    config.model.update(num_layers=1, width=256, hidden=1024, num_heads=4)
    config.model.update(num_kv_heads=4, head_dim=64, compute_dtype="float32")
    return ModelConfig.from_config(config.model, 512, config.mesh.rules)


def abstract_params():
    return jax.eval_shape(partial(init, model()), jax.random.key(0))


def make_slots(num_slots: int, rows: int) -> dict[str, np.ndarray]:
    shape = (num_slots, rows, L)
    return {
        "tokens": np.ones(shape, np.int32),
        "loss_mask": np.ones(shape, bool),
        "segments": np.ones(shape, np.int32),
        "positions": np.broadcast_to(np.arange(L, dtype=np.int32), shape).copy(),
    }


def compiled_text(sizes: dict[str, int], step, num_slots: int, rows: int) -> str:
    config, mesh = model(), sharding.make_mesh(sizes)
    with jax.set_mesh(mesh):
        params = jax.jit(partial(init, config))(jax.random.key(0))
        slots = sharding.place(make_slots(num_slots, rows), mesh, config.rules)
        return jax.jit(partial(step, config)).lower(params, slots).compile().as_text()


def plain(config, params, slots):
    """Gradient of one loss over all rows: fully sharded data parallelism."""
    rows = jax.tree.map(lambda x: x[0], slots)
    return jax.grad(lambda p: slot_loss(config, p, {}, rows)[0])(params)


def resolved(name, config, params, slots):
    groups = make_groups(params, "global", (STACKED,))
    engine = Engine(name, RESOLVERS["upgrad"](), groups, K)
    problem = Problem(
        partial(slot_loss, config),
        params,
        {},
        slots,
        jnp.arange(K),
        jnp.ones(K) / K,
    )
    gradient = resolved_gradient(engine, problem, init_engine(engine)).gradient
    return sharding.match_sharding(gradient, params)


@pytest.fixture(scope="module")
def baseline() -> dict[str, int]:
    sizes = dict(ability=1, data=8, model=1)
    return bytes_by_kind(compiled_text(sizes, plain, 1, K * B))


# Backward passes, each of which reduces gradients once.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "passes"), [("materialize", 1), ("lagged", 1), ("two_pass", 2)]
)
def test_abilities_on_their_own_slice_reduce_no_more_than_plain_training(
    baseline, name, passes
):
    sizes = dict(ability=4, data=2, model=1)
    ours = bytes_by_kind(compiled_text(sizes, partial(resolved, name), K, B))
    print(f"\n{name}: {ours}\nplain training: {baseline}")
    reduced = sum(ours[kind] for kind in REDUCING)
    reference = sum(baseline[kind] for kind in REDUCING)
    assert reduced <= 1.2 * passes * reference
    # The Gramian itself: K^2 numbers at once, or for each parameter where tapped.
    times = 1 if name == "materialize" else len(jax.tree.leaves(abstract_params()))
    assert reduced - passes * reference <= 4 * times * (K * K + K)
    # To bring the slots of a parameter together costs an exchange of one gradient.
    parameters = 4 * sum(x.size for x in jax.tree.leaves(abstract_params()))
    exchanged = ours["all-to-all"] + ours["collective-permute"]
    assert 0 < exchanged <= 1.2 * passes * parameters
