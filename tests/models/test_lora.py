"""Adapters against the formula of the paper, and what is trained and what is not."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from configs import base
from dcft_jax.models import STACKED, LoRA, ModelConfig, apply, combine, init, merge
from dcft_jax.models import split as split_params
from dcft_jax.models.lora import DOWN, TARGETS, UP
from dcft_jax.sharding import make_mesh
from tests.models.tiny_decoder import V, make

TOKENS_BL = np.random.default_rng(0).integers(0, V, (4, 12)).astype(np.int32)


def model(**fields) -> ModelConfig:
    lora = dict(rank=4, alpha=16.0, targets=TARGETS, rank_stabilised=False) | fields
    return dataclasses.replace(make(qkv_bias=True), lora=LoRA(**lora))


def trained_params(config: ModelConfig):
    """Parameters whose adapters are not at their start, where B is zero."""
    params = init(config, jax.random.key(0))
    adapters, frozen = split_params(params)
    leaves, structure = jax.tree.flatten(adapters)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [
        0.1 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)
    ]
    return combine(frozen, jax.tree.unflatten(structure, noise))


def test_an_untrained_adapter_changes_nothing():
    config = model()
    adapters, frozen = split_params(init(config, jax.random.key(0)))
    plain = dataclasses.replace(config, lora=None)
    np.testing.assert_array_equal(
        apply(config, combine(frozen, adapters), TOKENS_BL),
        apply(plain, frozen, TOKENS_BL),
    )


@pytest.mark.parametrize("targets", [TARGETS, ("query", "value"), ("out", "down")])
@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_merged_kernels_give_the_same_logits(targets, rank_stabilised: bool):
    config = model(alpha=3.0, targets=targets, rank_stabilised=rank_stabilised)
    params = trained_params(config)
    found = {
        name
        for part in ("attention", "mlp")
        for name, leaves in params[STACKED][part].items()
        if DOWN in leaves
    }
    assert found == set(targets)
    assert config.lora is not None
    merged = merge(config.lora, params)
    plain = dataclasses.replace(config, lora=None)
    expected = jax.tree.structure(init(plain, jax.random.key(0)))
    assert jax.tree.structure(merged) == expected
    adapted = apply(config, params, TOKENS_BL)
    np.testing.assert_allclose(apply(plain, merged, TOKENS_BL), adapted, atol=2e-5)
    untouched = apply(plain, split_params(params)[1], TOKENS_BL)
    assert np.abs(untouched - adapted).max() > 0.1


def test_merging_is_the_formula_of_the_paper():
    config = model(alpha=3.0)
    params = trained_params(config)
    assert config.lora is not None
    merged = merge(config.lora, params)
    for part, name in (("attention", "query"), ("attention", "out"), ("mlp", "down")):
        leaves = params[STACKED][part][name]
        down, up = np.float64(leaves[DOWN]), np.float64(leaves[UP])
        for layer in range(2):
            delta = down[layer].reshape(-1, 4) @ up[layer].reshape(4, -1)
            kernel = np.float64(leaves["kernel"][layer])
            np.testing.assert_allclose(
                merged[STACKED][part][name]["kernel"][layer],
                kernel + 3.0 / 4 * delta.reshape(kernel.shape),
                rtol=1e-5,
                atol=1e-6,
            )


def test_scales():
    assert LoRA(16, 32.0, ("query",), False).scale == 2.0
    assert LoRA(16, 32.0, ("query",), True).scale == 8.0


def test_a_starts_as_in_peft_and_b_at_zero():
    """kaiming_uniform_(a=sqrt(5)): uniform within 1 / sqrt(inputs)."""
    config = dataclasses.replace(model(), width=256, num_layers=1)
    adapters, _ = split_params(init(config, jax.random.key(0)))
    layer = adapters[STACKED]["attention"]
    for name, inputs in (("query", 256), ("out", 4 * 8)):
        down = np.asarray(layer[name][DOWN]).reshape(-1)
        limit = 1 / np.sqrt(inputs)
        assert np.abs(down).max() <= limit
        np.testing.assert_allclose(down.std(), limit / np.sqrt(3), rtol=0.1)
        assert not np.any(layer[name][UP])
        assert layer[name][DOWN].dtype == jnp.float32


def test_adapters_stay_in_full_precision_on_a_frozen_model_that_is_not():
    config = dataclasses.replace(model(), param_dtype="bfloat16")
    adapters, frozen = split_params(init(config, jax.random.key(0)))
    assert {x.dtype for x in jax.tree.leaves(adapters)} == {jnp.dtype("float32")}
    assert {x.dtype for x in jax.tree.leaves(frozen)} == {jnp.dtype("bfloat16")}


def test_split_without_adapters_trains_everything():
    config = dataclasses.replace(model(), lora=None)
    params = init(config, jax.random.key(0))
    trained, frozen = split_params(params)
    assert trained is params and frozen == {}


def test_on_a_mesh():
    config = model()
    params = trained_params(config)
    expected = apply(config, params, TOKENS_BL)
    mesh = make_mesh(dict(ability=1, data=4, model=2), jax.devices()[:8])
    with jax.set_mesh(mesh):
        wanted = jax.eval_shape(partial(init, config), jax.random.key(0))
        placed = jax.tree.map(
            lambda x, like: jax.sharding.reshard(x, like.sharding.spec), params, wanted
        )
        query = placed[STACKED]["attention"]["query"]
        assert query[DOWN].sharding.spec == P(None, "data", None)
        assert query[UP].sharding.spec == P(None, None, "model", None)
        tokens = jax.sharding.reshard(jnp.asarray(TOKENS_BL), P("data", None))
        got = jax.jit(partial(apply, config))(placed, tokens)
        assert config.lora is not None
        merged = merge(config.lora, placed)
        for part in ("query", "out"):
            kernels = [
                x[STACKED]["attention"][part]["kernel"] for x in (merged, placed)
            ]
            assert kernels[0].sharding == kernels[1].sharding
    np.testing.assert_allclose(got, expected, atol=2e-5)
    jax.tree.map(
        partial(np.testing.assert_allclose, atol=1e-6),
        jax.device_get(merged),
        jax.device_get(merge(config.lora, params)),
    )


BAD = [
    (dict(rank=-1), "lora.rank=-1 must be at least 1"),
    (dict(alpha=0.0), "lora.alpha=0.0 must be positive"),
    (dict(targets=("query", "head")), r"lora.targets=.*must be some of"),
    (dict(targets=()), r"lora.targets=.*must be some of"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_fields_are_named(change: dict, message: str):
    lora = base.get_config().lora.to_dict() | {"rank": 4} | change
    with pytest.raises(ValueError, match=message):
        LoRA.from_config(lora)
