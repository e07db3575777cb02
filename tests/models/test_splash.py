"""The kernel of TPUs, interpreted, against attention with all scores."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from dcft_jax import sharding
from dcft_jax.models import attention, init
from dcft_jax.models.attention import attend, views
from dcft_jax.models.splash import splash_attend, uses_splash
from tests.models.test_sharded_decoder import (
    EVERYTHING,
    assert_close,
    make,
    make_batch,
    slot_gradients,
)

DEVICES = jax.devices()[:4]
interpreted = partial(splash_attend, scale=0.3, interpret=True)


def inputs(length: int):
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(2, length, heads, 16) for heads in (4, 2, 2, 4)]
    query, key, value, weights = map(jax.random.normal, keys, shapes)
    ends = jnp.array([[length // 3, length // 2, length], [5, 6, length - 4]])
    segments_BL = jnp.sum(jnp.arange(length)[:, None] >= ends[:, None], axis=-1)
    return (query, key, value), weights, segments_BL


# Of 300 tokens, three blocks are made, and the last is filled up.
@pytest.mark.parametrize(
    ("length", "window", "cap"), [(24, 0, 0.0), (24, 7, 2.0), (300, 140, 0.0)]
)
def test_values_and_gradients_are_those_of_dense_attention(length, window, cap):
    tensors, weights, segments_BL = inputs(length)
    config = make(sliding_window=window)
    local, everything = views(config, length, segments_BL, None)
    view = local if window else everything

    def dense(query, key, value):
        out = attend(query, key, value, view.mask, scale=0.3, cap=cap)
        return jnp.sum(out * weights), out

    def splash(query, key, value):
        out = interpreted(
            *(query, key, value, segments_BL, bool(window)), cap=cap, window=window
        )
        return jnp.sum(out * weights), out

    both = [
        jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2), has_aux=True))(*tensors)
        for f in (splash, dense)
    ]
    assert_close(*both)


def test_rows_without_segments_and_a_window_chosen_while_it_runs():
    (query, key, value), _, _ = inputs(24)
    config = make(sliding_window=3)
    run = jax.jit(
        lambda windowed: interpreted(query, key, value, None, windowed, window=3)
    )
    for windowed, view in zip(
        (True, False), views(config, 24, None, None), strict=True
    ):
        expected = attend(query, key, value, view.mask, scale=0.3)
        np.testing.assert_allclose(run(jnp.array(windowed)), expected, atol=1e-5)


def test_on_a_mesh_each_device_has_its_rows_and_heads():
    tensors, weights, segments_BL = inputs(24)
    mesh = sharding.make_mesh(dict(slice=2, ability=1, data=1, model=2), DEVICES)
    spec = P(("slice", "data"), None, "model", None)

    def gradients(specs, *args):
        def loss(query, key, value):
            out = interpreted(query, key, value, segments_BL, False, specs=specs)
            return jnp.sum(out * weights)

        return jax.grad(loss, argnums=(0, 1, 2))(*args)

    run = jax.jit(gradients, static_argnums=0)
    expected = run((None, None), *tensors)
    with jax.set_mesh(mesh):
        weights, segments_BL = jax.device_put((weights, segments_BL), P())
        weights = jax.sharding.reshard(weights, spec)
        segments_BL = jax.sharding.reshard(segments_BL, P(spec[0], None))
        placed = jax.device_put(tensors, jax.NamedSharding(mesh, spec))
        got = run((spec, spec), *placed)
    assert got[0].sharding.spec == spec
    assert_close(got, expected)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [EVERYTHING, dict(remat="full", sliding_window=3)])
def test_the_decoder_is_the_same_with_either(fields, monkeypatch):
    config, batch = make(**fields), make_batch()
    params = init(config, jax.random.key(0))
    expected = jax.jit(partial(slot_gradients, config))(params, batch)
    used = []

    def splash(*args, **kwargs):
        used.append(args)
        return splash_attend(*args, **kwargs, interpret=True)

    monkeypatch.setattr(attention, "uses_splash", lambda config: True)
    monkeypatch.setattr(attention, "splash_attend", splash)
    got = jax.jit(partial(slot_gradients, config))(params, batch)
    assert used
    assert_close(got, expected)


def test_by_itself_it_is_for_tpus():
    config = make()
    assert config.attention == "auto" and not uses_splash(config)
    chip = jax.sharding.AbstractDevice("TPU v4", 2, "tpu")
    explicit, automatic = (
        jax.sharding.AbstractMesh((1,), ("data",), (kind,), abstract_device=chip)
        for kind in (AxisType.Explicit, AxisType.Auto)
    )
    with jax.sharding.use_abstract_mesh(automatic):
        assert not uses_splash(config)
    with jax.sharding.use_abstract_mesh(explicit):
        assert uses_splash(config)
        assert not uses_splash(dataclasses.replace(config, attention="dense"))
    with pytest.raises(ValueError, match=r"model\.attention='flash' must be one of"):
        dataclasses.replace(config, attention="flash")
