"""One step against plain JAX, on one device and on a mesh."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dcft_jax import sharding
from dcft_jax.conflict import ENGINES, RESOLVERS, Engine, make_groups
from dcft_jax.models import STACKED, ModelConfig, init
from dcft_jax.training.state import (
    TrainState,
    add_wide,
    init_mixture,
    init_state,
    wide_to_float,
)
from dcft_jax.training.step import make_train_step, slot_loss
from tests.training.compositions import compose

S, B, L, K = 4, 4, 16, 3
ABILITY_S = (0, 0, 1, 2)


def model(**changes) -> ModelConfig:
    from configs import base

    config = base.get_config()
    config.model.update(
        num_layers=2, width=32, hidden=64, num_heads=4, num_kv_heads=2, head_dim=8
    )
    config.model.compute_dtype = "float32"
    config.model.update(changes)
    return ModelConfig.from_config(config.model, 64, config.mesh.rules)


def make_batch(seed: int = 0, ability_S=ABILITY_S) -> dict[str, np.ndarray]:
    """Rows of two examples of 7 tokens (3 of them the response) and 2 of padding."""
    rng = np.random.default_rng(seed)
    segments_L = np.repeat([1, 2, 0], [7, 7, 2])
    in_example_L = np.r_[np.arange(7), np.arange(7), 0, 0]
    loss_mask_L = (in_example_L >= 4) & (segments_L > 0)
    shape = (len(ability_S), B, L)
    return {
        "tokens_SBL": rng.integers(1, 64, shape).astype(np.int32),
        "loss_mask_SBL": np.broadcast_to(loss_mask_L, shape).copy(),
        "segments_SBL": np.broadcast_to(segments_L, shape).astype(np.int32),
        "positions_SBL": np.broadcast_to(in_example_L, shape).astype(np.int32),
        "ability_S": np.asarray(ability_S, np.int32),
        "credit_C": np.array([0.25, -0.5, 0.25], np.float32),
        "rows_C": B * np.bincount(ability_S, minlength=K).astype(np.int32),
    }


def make_engine(config: ModelConfig, resolver="mean", name="materialize", accumulate=1):
    params = jax.eval_shape(partial(init, config), jax.random.key(0))
    groups = make_groups(params, "global", (STACKED,))
    return Engine(
        name,
        RESOLVERS[resolver](),
        groups,
        K,
        stacked=(STACKED,),
        accumulate=accumulate,
    )


def make_state(config: ModelConfig, optimizer, engine, weights=(0.5, 0.2, 0.3)):
    composition = compose(weights, num_examples=5)

    def build() -> TrainState:
        params = init(config, jax.random.key(0))
        mixture = init_mixture(composition, 5)
        return init_state(params, optimizer, engine, mixture)

    mesh = jax.sharding.get_mesh()
    layout = sharding.concretize(jax.eval_shape(build), mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, layout)
    return composition, jax.jit(build, out_shardings=shardings)()


@cache
def take_step(
    config: ModelConfig,
    resolver: str = "mean",
    accumulate: int = 1,
    mesh_sizes: tuple[int, ...] = (1, 1, 1, 1),
    ability_S: tuple[int, ...] = ABILITY_S,
    engine: str = "materialize",
):
    """One SGD step with rate 1, so the change of parameters is the gradient."""
    sizes = dict(zip(sharding.AXES, mesh_sizes, strict=True))
    devices = jax.devices()[: int(np.prod(mesh_sizes))]
    mesh = sharding.make_mesh(sizes, devices)
    optimizer = optax.sgd(1.0)
    with jax.set_mesh(mesh):
        static = make_engine(config, resolver, engine, accumulate)
        composition, state = make_state(config, optimizer, static)
        step = make_train_step(
            partial(slot_loss, config), optimizer, composition, static
        )
        batch = sharding.place(make_batch(ability_S=ability_S), mesh, config.rules)
        new_state, metrics = jax.jit(step)(state, {}, batch)
        change = jax.tree.map(lambda a, b: a - b, state.params, new_state.params)
        return jax.device_get((change, new_state, metrics))


def reference_gradient(config, batch, weights_K) -> tuple:
    """Gradient of sum_k w_k (mean loss of the response tokens of ability k)."""
    params = init(config, jax.random.key(0))
    names = ("tokens", "loss_mask", "segments", "positions")

    def objective(params):
        total, losses = 0.0, []
        for k in range(K):
            slots = np.flatnonzero(np.asarray(batch["ability_S"]) == k)
            rows = {
                n: jnp.asarray(batch[f"{n}_SBL"][slots].reshape(-1, L)) for n in names
            }
            loss, count = slot_loss(config, params, {}, rows)
            total += weights_K[k] * loss / count
            losses.append(loss)
        return total, jnp.stack(losses)

    grads, losses = jax.grad(objective, has_aux=True)(params)
    return jax.device_get((grads, losses))


def assert_close(a, b, rtol):
    for (path, x), y in zip(
        jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        scale = np.abs(y).max() + 1e-12
        where = jax.tree_util.keystr(path)
        np.testing.assert_allclose(x / scale, y / scale, atol=rtol, err_msg=where)


def test_mean_step_is_the_gradient_of_the_weighted_mean_of_ability_losses():
    config = model()
    change, _, metrics = take_step(config)
    expected, losses = reference_gradient(config, make_batch(), (0.5, 0.25, 0.3))
    # Ability 1 is owed 0.8 slots a step: where present it counts 1 / S = 0.25.
    assert_close(change, expected, 1e-5)
    np.testing.assert_allclose(metrics.loss_sum_K, losses, rtol=1e-5)
    np.testing.assert_array_equal(metrics.count_K, [48, 24, 24])


@pytest.mark.parametrize("resolver", ["mean", "pcgrad", "dualproj"])
def test_accumulation_changes_nothing(resolver: str):
    config = model()
    whole, parts = (take_step(config, resolver, n)[0] for n in (1, 4))
    assert_close(parts, whole, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh_sizes", "accumulate"),
    [((1, 2, 2, 2), 2), ((1, 4, 1, 2), 1), ((2, 2, 2, 1), 1)],
)
def test_sharded_equals_unsharded(mesh_sizes, accumulate):
    config = model()
    change, state, metrics = take_step(config, "dualproj")
    sharded = take_step(config, "dualproj", accumulate, mesh_sizes)
    assert_close(sharded[0], change, 1e-5)
    np.testing.assert_array_equal(sharded[1].mixture.rows_C, state.mixture.rows_C)
    np.testing.assert_allclose(
        sharded[2].conflict.cosines_KK, metrics.conflict.cosines_KK, atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["accumulate", "two_pass"])
@pytest.mark.parametrize(
    "changes", [{}, dict(remat="full"), dict(tie_embeddings=False, qkv_bias=True)]
)
def test_engines_agree_on_the_decoder(engine, changes):
    config = model(**changes)
    change, _, metrics = take_step(config, "upgrad")
    other = take_step(config, "upgrad", engine=engine)
    assert_close(other[0], change, 1e-5)
    gram_KK = metrics.conflict.gram_KK
    # Rounding is relative to the lengths of the gradients, not to their product.
    length_K = np.sqrt(np.diagonal(gram_KK))
    error_KK = np.abs(other[2].conflict.gram_KK - gram_KK)
    assert np.all(error_KK <= 2e-6 * length_K * length_K[:, None])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "mesh_sizes"),
    [
        ("two_pass", (1, 2, 2, 2)),
        ("two_pass", (2, 4, 1, 1)),
        ("lagged", (2, 2, 2, 1)),
        ("accumulate", (1, 1, 4, 2)),
    ],
)
def test_engines_on_a_mesh_equal_themselves_on_one_device(engine, mesh_sizes):
    config = model()
    change, _, metrics = take_step(config, "upgrad", engine=engine)
    sharded = take_step(config, "upgrad", mesh_sizes=mesh_sizes, engine=engine)
    assert_close(sharded[0], change, 1e-5)
    gram_KK = metrics.conflict.gram_KK
    np.testing.assert_allclose(sharded[2].conflict.gram_KK, gram_KK, rtol=1e-5)


def test_absent_ability_is_masked_not_zero():
    change, state, metrics = take_step(model(), "dualproj", ability_S=(0, 0, 1, 1))
    assert np.isnan(metrics.conflict.cosines_KK[2]).all()
    assert metrics.conflict.coefficients_K[2] == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(change))
    np.testing.assert_array_equal(state.mixture.rows_C, [2 * B, 2 * B, 0])


def test_counters_and_credit_follow_the_batch():
    _, state, _ = take_step(model())
    mixture = state.mixture
    np.testing.assert_array_equal(mixture.rows_C, [2 * B, B, B])
    np.testing.assert_array_equal(wide_to_float(mixture.tokens_K2), [48, 24, 24])
    np.testing.assert_array_equal(mixture.credit_C, make_batch()["credit_C"])
    assert state.step == 1


def test_the_gramian_is_summed_for_the_mixture_rule():
    _, state, metrics = take_step(model())
    sums, conflict = state.mixture.train, metrics.conflict
    np.testing.assert_allclose(sums.loss_K, metrics.loss_sum_K)
    np.testing.assert_array_equal(sums.count_K, [48, 24, 24])
    np.testing.assert_allclose(sums.gram_KK, conflict.gram_KK)
    np.testing.assert_array_equal(sums.gram_count_KK, np.ones((3, 3)))
    # Only the first ability has two slots to compare.
    np.testing.assert_array_equal(sums.noise_count_K, [1, 0, 0])
    np.testing.assert_allclose(sums.signal_K, [conflict.signal_K[0], 0, 0])
    np.testing.assert_allclose(sums.noise_K, [conflict.noise_K[0] / 48, 0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_no_host_callback_and_no_recompilation(engine):
    mesh_sizes = (1, 1, 2, 1) if engine == "accumulate" else (1, 2, 1, 1)
    config = model()
    optimizer, static = optax.sgd(1.0), make_engine(config, "dualproj", engine)
    sizes = dict(zip(sharding.AXES, mesh_sizes, strict=True))
    mesh = sharding.make_mesh(sizes, jax.devices()[: int(np.prod(mesh_sizes))])
    with jax.set_mesh(mesh):
        composition, state = make_state(config, optimizer, static)
        step = jax.jit(
            make_train_step(partial(slot_loss, config), optimizer, composition, static)
        )
        batches = [
            sharding.place(make_batch(s, a), mesh, config.rules)
            for s, a in enumerate((ABILITY_S, [0, 1, 1, 2], [2, 2, 2, 2]))
        ]
        for batch in batches:
            state, _ = step(state, {}, batch)
        assert step._cache_size() == 1
        assert "callback" not in step.lower(state, {}, batches[0]).as_text()


def test_wide_counter_carries():
    total_K2 = jnp.array([[0, 2**32 - 2], [1, 5]], jnp.uint32)
    total_K2 = add_wide(total_K2, jnp.array([3.0, 7.0]))
    np.testing.assert_array_equal(total_K2, [[1, 1], [1, 12]])


def test_golden_numbers_of_one_step():
    """If you did not intend to change model, loss or step, these must not move."""
    _, _, metrics = take_step(model(), "dualproj")
    loss_K = metrics.loss_sum_K / metrics.count_K
    np.testing.assert_allclose(loss_K, [4.712626, 4.419229, 4.797479], rtol=1e-5)
    np.testing.assert_allclose(metrics.grad_norm, 3.009824, rtol=1e-4)


def test_slot_loss_is_a_sum_and_a_count():
    config = model()
    params = init(config, jax.random.key(0))
    batch = make_batch()
    rows = {
        n: jnp.asarray(batch[f"{n}_SBL"])
        for n in ("tokens", "loss_mask", "segments", "positions")
    }
    loss_S, count_S = jax.vmap(partial(slot_loss, config, params, {}))(rows)
    whole = {n: x.reshape(-1, L) for n, x in rows.items()}
    loss, count = slot_loss(config, params, {}, whole)
    np.testing.assert_allclose(loss_S.sum(), loss, rtol=1e-6)
    assert count_S.sum() == count == S * B * 6
