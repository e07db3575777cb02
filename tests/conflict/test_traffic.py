"""What resolving conflicts adds to a step, read off its compiled program.

The plain step is the gradient of one mean loss of the same rows, by fully sharded data
parallelism. Operations are the compiler's count, of one layer: it counts the body of a
loop once. Bytes are what a device sends, with collectives as rings.
"""

import importlib.util
import os
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
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
from dcft_jax.models import STACKED, ModelConfig, abstract_params, init
from dcft_jax.planning.roofline import wire_bytes
from dcft_jax.planning.topology import topology_devices
from dcft_jax.planning.traffic import REDUCING, Collective, collectives
from dcft_jax.training.step import slot_loss

K, B, L = 4, 8, 64
TPU = "v4:2x2x2"
PLACES = [
    "cpu",
    pytest.param(
        TPU,
        marks=pytest.mark.skipif(
            importlib.util.find_spec("libtpu") is None,
            reason="libtpu is not installed: pip install dcft-jax[tpu]",
        ),
    ),
]


class Cost(NamedTuple):
    """Of one of eight devices."""

    flops: float
    moved: Sequence[Collective]
    num_kernels: int  # of attention by blocks

    def wire(self, *kinds: str) -> float:
        return sum(
            one.runs * wire_bytes(one, 8)
            for one in self.moved
            if not kinds or one.kind in kinds
        )

    def put_out(self, *kinds: str) -> int:
        return sum(one.total for one in self.moved if one.kind in kinds)


def model() -> ModelConfig:
    from configs import base

    config = base.get_config()
    config.model.update(num_layers=1, width=256, hidden=1024, num_heads=4)
    config.model.update(num_kv_heads=4, head_dim=64, compute_dtype="float32")
    return ModelConfig.from_config(config.model, 512, config.mesh.rules)


def num_bytes() -> int:
    """Of all parameters."""
    params = jax.eval_shape(partial(init, model()), jax.random.key(0))
    return 4 * sum(x.size for x in jax.tree.leaves(params))


def plain(config, params, slots):
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


@cache
def devices(place: str) -> list[Any]:
    if place == "cpu":
        return jax.devices()
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    return topology_devices(place)


@cache
def cost(place: str, name: str) -> Cost:
    """Of the plain step, or the one of an engine."""
    ours = name != "plain"
    sizes = dict(ability=4, data=2) if ours else dict(ability=1, data=8)
    config = model()
    mesh = sharding.make_mesh(sizes | dict(model=1), devices(place))
    shape = (K, B, L) if ours else (1, K * B, L)
    spec = sharding.logical_to_spec(config.rules, ("slot", "batch", None))
    rows = jax.sharding.NamedSharding(mesh, spec)
    slots = {
        field: jax.ShapeDtypeStruct(shape, dtype, sharding=rows)
        for field, dtype in (
            ("tokens", jnp.int32),
            ("loss_mask", jnp.bool_),
            ("segments", jnp.int32),
            ("positions", jnp.int32),
        )
    }
    step = partial(resolved, name) if ours else plain
    with jax.set_mesh(mesh):
        params = abstract_params(config, mesh)
        compiled = jax.jit(partial(step, config)).lower(params, slots).compile()
    flops = compiled.cost_analysis()["flops"]
    text = compiled.as_text()
    kernels = text.count('custom_call_target="tpu_custom_call"')
    return Cost(flops, collectives(text), kernels)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("engine", ["materialize", "lagged"])
def test_a_step_costs_hardly_more_than_plain_training(place: str, engine: str):
    ours, reference = cost(place, engine), cost(place, "plain")
    print(f"\n{place}, {engine}: {ours.flops / reference.flops:.4f} of the operations")
    for name, kinds in (
        ("gradients", (*REDUCING, "all-to-all", "collective-permute")),
        ("all bytes", ()),
    ):
        sent, usual = ours.wire(*kinds), reference.wire(*kinds)
        print(f"{name}: {sent:,.0f} of {usual:,.0f}: {sent / usual:.3f}")
        assert 0 < sent <= 1.15 * usual
    assert reference.flops < ours.flops <= 1.02 * reference.flops
    # Forward, and backward for queries and for keys; the same for any number of slots.
    assert ours.num_kernels == reference.num_kernels == (0 if place == "cpu" else 3)


@pytest.mark.slow
def test_two_passes_cost_a_second_backward_pass():
    ours, reference = cost("cpu", "two_pass"), cost("cpu", "plain")
    assert 1.5 * reference.flops < ours.flops < 2.1 * reference.flops


# Backward passes, each of which reduces gradients once.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "passes"), [("materialize", 1), ("lagged", 1), ("two_pass", 2)]
)
def test_abilities_on_their_own_slice_reduce_no_more_than_plain_training(name, passes):
    ours, reference = cost("cpu", name), cost("cpu", "plain")
    usual = passes * reference.put_out(*REDUCING)
    reduced = ours.put_out(*REDUCING)
    assert reduced <= 1.2 * usual
    # The Gramian itself: K^2 numbers at once, or for each parameter where tapped.
    leaves = jax.tree.leaves(jax.eval_shape(partial(init, model()), jax.random.key(0)))
    times = 1 if name == "materialize" else len(leaves)
    assert reduced - usual <= 4 * times * (K * K + K)
    # To bring the slots of a parameter together costs an exchange of one gradient.
    exchanged = ours.put_out("all-to-all", "collective-permute")
    assert 0 < exchanged <= 1.2 * passes * num_bytes()
