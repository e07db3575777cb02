"""Quantised kernels against NumPy, and a decoder that reads them."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from dcft_jax.models import (
    STACKED,
    LoRA,
    ModelConfig,
    apply,
    init,
    merge,
    quantize_kernels,
)
from dcft_jax.models.quantized import dense
from dcft_jax.sharding import make_mesh

# Of QLoRA, appendix E (arXiv:2305.14314).
NF4 = np.float32(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634),
        *(0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
        *(0.7229568362236023, 1.0),
    ]
)
TOKENS_BL = np.random.default_rng(0).integers(0, 40, (4, 12)).astype(np.int32)


def model(**fields) -> ModelConfig:
    config = base.get_config()
    config.model.update(num_layers=2, width=128, hidden=192, num_heads=4)
    config.model.update(num_kv_heads=2, head_dim=64, compute_dtype="float32", **fields)
    return ModelConfig.from_config(config.model, 40, config.mesh.rules)


def kernel(name: str, part: str = "attention"):
    params = init(model(), jax.random.key(0))
    return params[STACKED][part][name]["kernel"]


def quantised(name: str, kind: str, part: str = "attention"):
    return quantize_kernels({name: {"kernel": kernel(name, part)}}, kind)[name][
        "kernel"
    ]


@pytest.mark.parametrize(
    ("part", "name", "inputs"),
    [("attention", "query", (1,)), ("attention", "out", (1, 2)), ("mlp", "down", (1,))],
)
def test_int8_rounds_to_a_255th_of_the_range(part, name, inputs):
    exact = np.float64(kernel(name, part))
    scale = np.abs(exact).max(axis=inputs, keepdims=True) / 127.5
    got = quantised(name, "int8", part)
    assert got.qvalue.dtype == jnp.int8 and got.scale.shape == scale.shape
    np.testing.assert_allclose(got.scale, scale, rtol=1e-6)
    steps = np.float64(dense(got, jnp.float32)) / scale
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    assert np.abs(steps - exact / scale).max() < 0.5 + 1e-4


@pytest.mark.parametrize(
    ("part", "name", "axis"),
    [("attention", "query", 1), ("attention", "out", 1), ("mlp", "down", 1)],
)
def test_nf4_takes_the_nearest_of_its_levels(part, name, axis):
    exact = np.float32(kernel(name, part))
    if name == "out":  # [N, heads, channels, D]: blocks along the channels
        axis = 2
    blocks = np.moveaxis(exact, axis, -1).reshape(-1, 64)
    scale = np.abs(blocks).max(axis=1, keepdims=True)
    level = np.abs(blocks[:, :, None] / scale[:, :, None] - NF4).argmin(axis=2)
    expected = (NF4[level] * scale).reshape(np.moveaxis(exact, axis, -1).shape)
    got = quantised(name, "nf4", part)
    assert got.qvalue.dtype == jnp.uint4
    np.testing.assert_allclose(
        dense(got, jnp.float32), np.moveaxis(expected, -1, axis), atol=1e-6
    )


def test_norms_stay_and_a_decoder_reads_the_rest():
    config = model()
    params = init(config, jax.random.key(0))
    for kind, limit in (("int8", 0.05), ("nf4", 0.8)):
        stack = quantize_kernels(params[STACKED], kind)
        assert stack["mlp_norm"]["scale"] is params[STACKED]["mlp_norm"]["scale"]
        got = apply(config, params | {STACKED: stack}, TOKENS_BL)
        rounded = jax.tree.map(
            lambda x: dense(x, jnp.float32),
            stack,
            is_leaf=lambda x: hasattr(x, "qvalue"),
        )
        expected = apply(config, params | {STACKED: rounded}, TOKENS_BL)
        np.testing.assert_allclose(got, expected, atol=2e-5)
        exact = apply(config, params, TOKENS_BL)
        assert 0 < np.abs(got - exact).std() < limit * exact.std()


def test_adapters_on_it_merge_into_what_was_trained():
    lora = LoRA(2, 4.0, ("query", "down"), False)
    config = dataclasses.replace(model(), lora=lora)
    params = init(config, jax.random.key(0))
    params[STACKED] = quantize_kernels(params[STACKED], "int8")
    for part, name in (("attention", "query"), ("mlp", "down")):
        leaves = params[STACKED][part][name]
        leaves["lora_b"] = jnp.full_like(leaves["lora_b"], 0.1)
    merged = merge(lora, params)
    # Those that have no adapter, too.
    assert merged[STACKED]["mlp"]["up"]["kernel"].dtype == jnp.float32
    plain = dataclasses.replace(config, lora=None)
    np.testing.assert_allclose(
        apply(plain, merged, TOKENS_BL), apply(config, params, TOKENS_BL), atol=2e-5
    )


@pytest.mark.parametrize(
    ("kind", "spec"), [("int8", (None, "data", "model")), ("nf4", (None, None, None))]
)
def test_on_a_mesh(kind: str, spec: tuple):
    config = model()
    params = init(config, jax.random.key(0))
    stack = quantize_kernels(params[STACKED], kind)
    expected = apply(config, params | {STACKED: stack}, TOKENS_BL)
    mesh = make_mesh(dict(ability=1, data=4, model=2), jax.devices()[:8])
    with jax.set_mesh(mesh):
        params = init(config, jax.random.key(0))
        params[STACKED] = quantize_kernels(params[STACKED], kind)
        gate = params[STACKED]["mlp"]["gate"]["kernel"]
        assert tuple(gate.qvalue.sharding.spec) == spec
        tokens = jax.sharding.reshard(
            jnp.asarray(TOKENS_BL), jax.sharding.PartitionSpec("data", None)
        )
        got = jax.jit(partial(apply, config))(params, tokens)
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match=r"quantize='int3' must be one of"):
        quantize_kernels({}, "int3")
