"""Attention, rotary positions and their masks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import base
from dcft_jax.models import ModelConfig
from dcft_jax.models.attention import attend, views
from dcft_jax.models.layers import rope_angles, rope_frequencies, rotate

CONFIG = base.get_config()
MODEL = ModelConfig.from_config(CONFIG.model, 64, CONFIG.mesh.rules)


def make(**fields) -> ModelConfig:
    return dataclasses.replace(MODEL, **fields)


def random(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def plain_attention(query, key, value, mask, scale, cap):
    """Loops over rows, heads and queries, in float64."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    out = np.zeros(query.shape)
    repeats = query.shape[2] // key.shape[2]
    for b, q, h in np.ndindex(query.shape[:3]):
        scores = key[b, :, h // repeats] @ query[b, q, h] * scale
        scores = cap * np.tanh(scores / cap) if cap else scores
        weights = np.where(mask[b, q], np.exp(scores - scores.max()), 0.0)
        out[b, q, h] = weights @ value[b, :, h // repeats] / weights.sum()
    return out


@pytest.mark.parametrize("cap", [0.0, 2.0])
def test_attend_equals_plain_loops(cap):
    query, key, value = (random(2, 5, h, 8, seed=h) for h in (4, 2, 2))
    mask = np.tril(np.ones((2, 5, 5), bool))
    mask[1, 3:, :2] = False
    got = attend(query, key, value, jnp.asarray(mask), scale=0.7, cap=cap)
    expected = plain_attention(query, key, value, mask, 0.7, cap)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("cap", [0.0, 2.0])
def test_grouped_heads_equal_repeated_key_heads(cap):
    query, key, value = random(1, 6, 6, 4), random(1, 6, 2, 4, seed=1), None
    value = random(1, 6, 2, 4, seed=2)
    mask = jnp.tril(jnp.ones((1, 6, 6), bool))
    grouped = attend(query, key, value, mask, scale=0.5, cap=cap)
    key, value = (jnp.repeat(x, 3, axis=2) for x in (key, value))
    repeated = attend(query, key, value, mask, scale=0.5, cap=cap)
    np.testing.assert_allclose(grouped, repeated, atol=1e-6)


def test_a_huge_cap_changes_nothing_and_a_small_one_does():
    query, key, value = (random(1, 4, 2, 8, seed=s) for s in range(3))
    mask = jnp.tril(jnp.ones((1, 4, 4), bool))
    free = attend(query, key, value, mask, scale=1.0)
    np.testing.assert_allclose(
        attend(query, key, value, mask, scale=1.0, cap=1e4), free, atol=1e-5
    )
    capped = attend(query, key, value, mask, scale=1.0, cap=0.5)
    assert np.abs(capped - free).max() > 1e-2


def test_masks_are_causal_within_segments_and_windowed():
    segments_BL = jnp.array([[1, 1, 1, 1, 2, 2, 0, 0]])
    local, everything = views(make(sliding_window=2), 8, segments_BL, None)
    for query, key in np.ndindex(8, 8):
        same = segments_BL[0, query] == segments_BL[0, key]
        assert everything.mask[0, query, key] == (key <= query and same)
        assert local.mask[0, query, key] == (key <= query < key + 2 and same)
    assert everything.mask.any(-1).all(), "padding must see something, or it is nan"


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 1000))
def test_rotated_products_depend_on_the_distance_only(first, second, shift):
    query, key = (
        random(1, 1, 1, MODEL.head_dim),
        random(1, 1, 1, MODEL.head_dim, seed=1),
    )

    def product(query_at, key_at):
        def at(x, position):
            return rotate(x, *rope_angles(MODEL, jnp.array([[position]]), local=False))

        return float(jnp.sum(at(query, query_at) * at(key, key_at)))

    moved = product(first + shift, second + shift)
    np.testing.assert_allclose(moved, product(first, second), atol=3e-3)


def test_rotation_keeps_length_and_position_zero():
    x = random(1, 3, 2, MODEL.head_dim)
    turned = rotate(x, *rope_angles(MODEL, jnp.arange(3)[None], local=False))
    np.testing.assert_allclose(turned[:, 0], x[:, 0], atol=1e-6)
    norms = (np.linalg.norm(y, axis=-1) for y in (turned, x))
    np.testing.assert_allclose(*norms, rtol=1e-5)


def test_linear_scaling_stretches_global_layers_only():
    config = make(rope_scaling="linear", rope_scaling_factor=8.0, local_rope_theta=50.0)
    plain = MODEL.rope_theta ** -(np.arange(0, 32, 2) / 32)
    np.testing.assert_allclose(rope_frequencies(config, False), plain / 8, rtol=1e-6)
    local = 50.0 ** -(np.arange(0, 32, 2) / 32)
    np.testing.assert_allclose(rope_frequencies(config, True), local, rtol=1e-6)


def test_llama3_scaling_by_wavelength():
    config = make(
        head_dim=128,
        rope_theta=500_000.0,
        rope_scaling="llama3",
        rope_scaling_factor=8.0,
    )
    plain = 500_000.0 ** -(np.arange(0, 128, 2) / 128)
    got = rope_frequencies(config, False)
    wavelength = 2 * np.pi / plain
    expected = []
    for frequency, length in zip(plain, wavelength, strict=True):
        if length < 8192 / 4.0:
            expected.append(frequency)
        elif length > 8192 / 1.0:
            expected.append(frequency / 8.0)
        else:
            smooth = (8192 / length - 1.0) / (4.0 - 1.0)
            expected.append((1 - smooth) * frequency / 8.0 + smooth * frequency)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    middle = (got < plain * 0.99) & (got > plain / 8 * 1.01)
    assert middle.any(), "the interpolated band must be exercised"
