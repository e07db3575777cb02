"""The decoder against an independent numpy Llama, and its invariants."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dcft_jax import models
from dcft_jax.models import init, token_nll
from dcft_jax.models.attention import views
from dcft_jax.models.decoder import Block
from dcft_jax.models.layers import RMSNorm
from tests.models.tiny_decoder import (
    FAMILIES,
    GEMMA3,
    V,
    make,
    random_params,
    random_tokens,
)

apply = jax.jit(models.apply, static_argnums=0)
hidden = jax.jit(models.hidden, static_argnums=0)
unembed = jax.jit(models.unembed, static_argnums=0)


def numpy_norm(config, x, scale):
    power = (x**2).mean(-1, keepdims=True) + config.norm_eps
    return x / np.sqrt(power) * (config.norm_offset + scale)


def numpy_cap(x, limit):
    return limit * np.tanh(x / limit) if limit else x


def numpy_rope(config, x, local):
    """Turns each pair of channels as a complex number."""
    theta = config.local_rope_theta if local else config.rope_theta
    stretch = 1.0 if local else config.rope_scaling_factor
    half, out = config.head_dim // 2, np.zeros_like(x)
    for t, i in np.ndindex(len(x), half):
        angle = t / stretch / theta ** (2 * i / config.head_dim)
        z = (x[t, :, i] + 1j * x[t, :, i + half]) * np.exp(1j * angle)
        out[t, :, i], out[t, :, i + half] = z.real, z.imag
    return out


def numpy_attention(config, x, p, local):
    q, k, v = (
        np.einsum("td,dhc->thc", x, p[n]["kernel"]) + p[n].get("bias", 0.0)
        for n in ("query", "key", "value")
    )
    if config.qk_norm:
        q = numpy_norm(config, q, p["query_norm"]["scale"])
        k = numpy_norm(config, k, p["key_norm"]["scale"])
    q, k = numpy_rope(config, q, local), numpy_rope(config, k, local)
    mixed = np.zeros_like(q)
    for t, h in np.ndindex(len(x), config.num_heads):
        group = h // (config.num_heads // config.num_kv_heads)
        first = max(0, t - config.sliding_window + 1) if local else 0
        scores = k[first : t + 1, group] @ q[t, h]
        scores = scores * (config.query_scale or config.head_dim**-0.5)
        weights = np.exp(numpy_cap(scores, config.attention_softcap))
        mixed[t, h] = weights @ v[first : t + 1, group] / weights.sum()
    return np.einsum("thc,hcd->td", mixed, p["out"]["kernel"])


def numpy_mlp(config, x, p):
    gate = x @ p["gate"]["kernel"]
    if config.activation == "silu":
        gate = gate / (1 + np.exp(-gate))
    else:
        inner = np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)
        gate = 0.5 * gate * (1 + np.tanh(inner))
    return (gate * (x @ p["up"]["kernel"])) @ p["down"]["kernel"]


def numpy_decoder(config, params, tokens):
    """One unpacked row through any family, written from the papers, in float64."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    x = p["embed"]["embedding"][tokens]
    x = x * np.sqrt(config.width) if config.scale_embeddings else x
    for i in range(config.num_layers):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], p["layers"])
        every = config.global_every
        local = bool(config.sliding_window) and not (every and (i + 1) % every == 0)
        update = numpy_norm(config, x, layer["attention_norm"]["scale"])
        update = numpy_attention(config, update, layer["attention"], local)
        if config.post_norms:
            update = numpy_norm(config, update, layer["attention_post_norm"]["scale"])
        x = x + update
        update = numpy_norm(config, x, layer["mlp_norm"]["scale"])
        update = numpy_mlp(config, update, layer["mlp"])
        if config.post_norms:
            update = numpy_norm(config, update, layer["mlp_post_norm"]["scale"])
        x = x + update
    x = numpy_norm(config, x, p["final_norm"]["scale"])
    tied = config.tie_embeddings
    logits = x @ (p["embed"]["embedding"].T if tied else p["head"]["kernel"])
    return numpy_cap(logits, config.logits_softcap)


@pytest.mark.parametrize("family", FAMILIES)
def test_decoder_equals_the_numpy_reference(family):
    config = make(**FAMILIES[family])
    params, tokens_BL = random_params(config), random_tokens(1, 9)
    logits_BLV = apply(config, params, tokens_BL)
    expected_LV = numpy_decoder(config, params, np.asarray(tokens_BL[0]))
    assert logits_BLV.dtype == jnp.float32
    assert np.abs(expected_LV).max() > 0.5
    np.testing.assert_allclose(logits_BLV[0], expected_LV, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_packed_examples_equal_single_examples(family):
    config = make(**FAMILIES[family])
    params = random_params(config)
    first, second = random_tokens(1, 4, seed=1), random_tokens(1, 6, seed=2)
    row = jnp.concatenate([first, second, jnp.zeros((1, 2), jnp.int32)], axis=1)
    segments = jnp.array([[1] * 4 + [2] * 6 + [0] * 2])
    positions = jnp.array([[*range(4), *range(6), 0, 0]])
    packed = apply(config, params, row, segments, positions)
    np.testing.assert_allclose(packed[:, :4], apply(config, params, first), atol=2e-5)
    np.testing.assert_allclose(
        packed[:, 4:10], apply(config, params, second), atol=2e-5
    )
    assert np.isfinite(packed).all()
    unplaced = apply(config, params, row, segments)
    np.testing.assert_allclose(unplaced, packed, atol=1e-4)


def test_padding_gives_finite_gradients():
    config = make()
    params, tokens_BL = random_params(config), random_tokens(2, 5)

    def loss(params):
        return apply(config, params, tokens_BL, jnp.zeros((2, 5), jnp.int32)).sum()

    grads = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_no_token_sees_a_later_one():
    config = make()
    params, tokens_BL = random_params(config), random_tokens(1, 8)
    before = apply(config, params, tokens_BL)
    after = apply(config, params, tokens_BL.at[0, 5].add(1) % V)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.abs(before[:, 5:] - after[:, 5:]).min(axis=-1).max() > 1e-4


def test_window_bounds_what_a_stack_of_layers_can_see():
    config = make(num_layers=2, sliding_window=3)
    params, tokens_BL = random_params(config), random_tokens(1, 10)
    before = apply(config, params, tokens_BL)
    after = apply(config, params, tokens_BL.at[0, 0].add(1) % V)
    reach = 2 * (3 - 1)  # layers times (window - 1)
    np.testing.assert_array_equal(before[:, reach + 1 :], after[:, reach + 1 :])
    assert np.abs(before[:, reach] - after[:, reach]).max() > 1e-5


@pytest.mark.parametrize("remat", ["full", "dots", "all_dots"])
def test_remat_changes_no_gradient(remat):
    config = make(**GEMMA3)
    params, tokens_BL = random_params(config), random_tokens(1, 6)

    def loss(params, config):
        return token_nll(apply(config, params, tokens_BL), tokens_BL).sum()

    grad = jax.jit(jax.grad(loss), static_argnums=1)
    expected = grad(params, config)
    got = grad(params, dataclasses.replace(config, remat=remat))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)


def test_scan_equals_a_loop_over_layers():
    config = make(num_layers=3)
    params, tokens_BL = random_params(config), random_tokens(1, 6)
    structure = nnx.graphdef(nnx.eval_shape(lambda: Block(config, nnx.Rngs(0))))
    run_block = jax.jit(lambda layer, x, view: nnx.merge(structure, layer)(x, view)[0])
    view = views(config, 6, None, None)[1]
    x_BLD = params["embed"]["embedding"][tokens_BL]
    for i in range(config.num_layers):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
        x_BLD = run_block(layer, x_BLD, view)
    power_BL1 = jnp.mean(x_BLD**2, axis=-1, keepdims=True) + config.norm_eps
    expected = x_BLD / jnp.sqrt(power_BL1) * params["final_norm"]["scale"]
    np.testing.assert_allclose(hidden(config, params, tokens_BL), expected, atol=1e-5)


@pytest.mark.parametrize("fields", [{}, dict(sliding_window=2, global_every=2)])
def test_program_does_not_grow_with_depth(fields):
    def lines(num_layers):
        config = make(num_layers=num_layers, **fields)
        params = jax.eval_shape(lambda: init(config, jax.random.key(0)))

        def loss(params, tokens_BL):
            return apply(config, params, tokens_BL).sum()

        return len(
            str(
                jax.make_jaxpr(jax.grad(loss))(params, random_tokens(1, 4))
            ).splitlines()
        )

    assert lines(2) == lines(8)


def test_split_into_hidden_and_unembed():
    config = make(logits_softcap=2.0)
    params, tokens_BL = random_params(config), random_tokens(2, 5)
    whole = apply(config, params, tokens_BL)
    parts = unembed(config, params, hidden(config, params, tokens_BL))
    np.testing.assert_allclose(parts, whole, atol=1e-6)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_dtypes(compute):
    config = make(compute_dtype=compute, param_dtype="bfloat16", **FAMILIES["qwen2"])
    params = init(config, jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    tokens_BL = random_tokens(1, 4)
    assert hidden(config, params, tokens_BL).dtype == jnp.dtype(compute)
    assert apply(config, params, tokens_BL).dtype == jnp.float32


def test_norm_computes_in_float32():
    norm = RMSNorm(make(), 4096)
    # 300 ** 2 overflows nothing in float32, but a sum of 4096 squares loses all
    # precision in bfloat16.
    x = jnp.full((1, 4096), 300.0, jnp.bfloat16)
    np.testing.assert_array_equal(norm(x).astype(jnp.float32), 1.0)


def test_unknown_tokens_are_loud():
    config = make()
    logits_BLV = apply(config, random_params(config), jnp.array([[1, 2], [1, V]]))
    assert np.isfinite(logits_BLV[0]).all()
    assert np.isnan(logits_BLV[1]).all(), "an unknown token spoils its whole row"


def test_initial_loss_is_near_that_of_guessing():
    config = make(width=64, num_layers=4)
    params, tokens_BL = init(config, jax.random.key(0)), random_tokens(4, 32)
    nll_BL = token_nll(apply(config, params, tokens_BL), random_tokens(4, 32, seed=1))
    assert abs(float(nll_BL.mean()) - np.log(V)) < 1.0


def test_init_is_a_plain_dict_scaled_by_fan_in():
    config = make(width=256, hidden=512, num_layers=2)
    params = init(config, jax.random.key(0))
    assert type(params) is dict
    assert type(params["layers"]) is dict
    layers = params["layers"]
    std = np.std(layers["mlp"]["gate"]["kernel"])
    np.testing.assert_allclose(std, 256**-0.5, rtol=0.05)
    std = np.std(layers["mlp"]["down"]["kernel"])
    np.testing.assert_allclose(std, (512 * 2 * 2) ** -0.5, rtol=0.05)
    first, second = layers["mlp"]["gate"]["kernel"]
    assert np.abs(first - second).max() > 0.01, "layers must differ"
