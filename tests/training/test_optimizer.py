import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import base
from dcft_jax.models import ModelConfig, init
from dcft_jax.training.optimizer import decay_mask, make_optimizer, make_schedule

STEPS = 100


def settings(**changes) -> ConfigDict:
    config = base.get_config().optimizer
    config.update(learning_rate=1.0, warmup_steps=10, final_share=0.1, decay_share=0.2)
    config.update(changes)
    return config


def rates(schedule: str) -> np.ndarray:
    rate = make_schedule(settings(schedule=schedule), STEPS)
    return np.array([rate(step) for step in range(STEPS + 1)])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "wsd"])
def test_schedules_warm_up_linearly_from_zero(schedule: str):
    np.testing.assert_allclose(rates(schedule)[:11], np.arange(11) / 10, atol=1e-6)


def test_schedules_end_where_they_say():
    assert rates("constant")[-1] == 1.0
    np.testing.assert_allclose(rates("cosine")[-1], 0.1, atol=1e-6)
    np.testing.assert_allclose(rates("cosine")[55], 0.55, atol=1e-6)
    wsd = rates("wsd")
    np.testing.assert_allclose(wsd[10:81], 1.0)
    np.testing.assert_allclose(wsd[80:], np.linspace(1.0, 0.1, 21), atol=1e-6)


def test_only_matrices_are_decayed():
    config = base.get_config()
    config.model.update(qkv_bias=True, qk_norm=True, post_norms=True)
    model = ModelConfig.from_config(config.model, 64, config.mesh.rules)
    params = init(model, jax.random.key(0))
    for path, decays in jax.tree.leaves_with_path(decay_mask(params)):
        name = jax.tree_util.keystr(path)
        assert decays == ("kernel" in name), name


def test_decay_is_decoupled_and_clipping_only_scales():
    params = {"kernel": jnp.full(4, 2.0), "norm": {"scale": jnp.full(4, 2.0)}}
    zero = jax.tree.map(jnp.zeros_like, params)
    rate = settings(weight_decay=0.1, schedule="constant", warmup_steps=0)
    optimizer = make_optimizer(rate, STEPS)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.2, rtol=1e-6)
    np.testing.assert_array_equal(updates["norm"]["scale"], 0.0)
    # Adam is blind to scale, so a clipped gradient must give the same update.
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params)
    big = jax.tree.map(lambda x: 1e3 * x, grads)
    one, two = (
        optimizer.update(g, optimizer.init(params), params)[0] for g in (grads, big)
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_clip_bounds_what_adam_remembers():
    params = {"kernel": jnp.zeros(4)}
    optimizer = make_optimizer(settings(clip_norm=0.5), STEPS)
    state = optimizer.init(params)
    _, state = optimizer.update({"kernel": jnp.full(4, 1e6)}, state, params)
    mu = optax.tree.get(state, "mu")["kernel"]
    np.testing.assert_allclose(np.linalg.norm(mu), 0.5 * 0.1, rtol=1e-5)
