"""Logits only where there is a loss, and in chunks: the same scores and gradients."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from dcft_jax.models import init, score_responses
from dcft_jax.sharding import make_mesh
from tests.models.tiny_decoder import V, make


def rows(num_rows: int = 4, length: int = 24, seed: int = 0) -> dict[str, jax.Array]:
    """Rows with two examples and padding, and responses of different lengths."""
    rng = np.random.default_rng(seed)
    segments_BL = np.zeros((num_rows, length), np.int32)
    mask_BL = np.zeros((num_rows, length), bool)
    positions_BL = np.zeros((num_rows, length), np.int32)
    for b in range(num_rows):
        start = 0
        for segment in (1, 2):
            size, response = int(rng.integers(6, 11)), int(rng.integers(1, 5))
            stop = start + size
            segments_BL[b, start:stop] = segment
            positions_BL[b, start:stop] = np.arange(size)
            mask_BL[b, stop - response : stop] = True
            start = stop
    tokens_BL = rng.integers(0, V, (num_rows, length))
    return {
        "tokens": jnp.asarray(tokens_BL, jnp.int32),
        "loss_mask": jnp.asarray(mask_BL),
        "segments": jnp.asarray(segments_BL),
        "positions": jnp.asarray(positions_BL),
    }


def value_and_gradient(config, batch, max_predicted=None):
    params = init(config, jax.random.key(1))

    def loss(params):
        nll_BL, correct_BL, mask_BL = score_responses(
            config, params, batch, max_predicted=max_predicted
        )
        return jnp.sum(nll_BL), (nll_BL, correct_BL, mask_BL)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


@pytest.mark.parametrize(
    ("chunk", "max_predicted", "tie_embeddings"),
    [(0, 8, True), (3, None, True), (3, 8, False), (1, 12, True), (100, 24, True)],
)
def test_where_there_is_no_loss_no_logits_are_missed(
    chunk: int, max_predicted: int | None, tie_embeddings: bool
):
    batch = rows()
    assert int(batch["loss_mask"].sum(axis=1).max()) <= 8
    config = make(logits_softcap=5.0, tie_embeddings=tie_embeddings)
    (expected, scores), gradient = value_and_gradient(config, batch)
    assert float(expected) > 0
    config = dataclasses.replace(config, logits_chunk=chunk)
    (got, ours), ours_gradient = value_and_gradient(config, batch, max_predicted)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    np.testing.assert_allclose(ours[0], scores[0], atol=1e-5)
    np.testing.assert_array_equal(ours[1], scores[1])
    np.testing.assert_array_equal(ours[2], scores[2])
    jax.tree.map(
        partial(np.testing.assert_allclose, atol=1e-5), ours_gradient, gradient
    )


def test_a_row_with_more_than_fit_is_not_scored_in_silence():
    batch = rows()
    count_B = np.asarray(batch["loss_mask"].sum(axis=1))
    most = int(count_B.max())
    config = make()
    params = init(config, jax.random.key(1))
    nll_BL, _, mask_BL = score_responses(config, params, batch, max_predicted=most - 1)
    lost_BL = np.isnan(nll_BL)
    expected_BL = np.asarray(mask_BL) & (count_B == most)[:, None]
    np.testing.assert_array_equal(lost_BL, expected_BL)


def test_fewer_logits_are_computed():
    """Of the unembedding there are P instead of L products."""
    config, batch = make(), rows()
    params = init(config, jax.random.key(1))

    def flops(**options) -> float:
        step = jax.jit(lambda p: score_responses(config, p, batch, **options)[0].sum())
        return step.lower(params).compile().cost_analysis()["flops"]

    saved = flops() - flops(max_predicted=8)
    product = 2 * 4 * (24 - 8) * 16 * V  # 2 B (L - P) D V
    assert saved > 0.9 * product


def test_chunks_bound_the_memory():
    config = dataclasses.replace(make(), vocab_size=4096)
    batch = rows(num_rows=8, length=64)
    params = jax.eval_shape(partial(init, config), jax.random.key(0))

    def temporary(chunk: int) -> int:
        chunked = dataclasses.replace(config, logits_chunk=chunk)

        def loss(params):
            return score_responses(chunked, params, batch)[0].sum()

        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    logits = 4 * 8 * 64 * 4096
    assert temporary(0) - temporary(8) > 0.7 * logits


def test_on_a_mesh():
    config, batch = make(), rows()
    (expected, _), gradient = value_and_gradient(config, batch)
    config = dataclasses.replace(config, logits_chunk=3)
    mesh = make_mesh(dict(ability=1, data=4, model=2), jax.devices()[:8])
    with jax.set_mesh(mesh):
        spec = P(("slice", "data"), None)
        placed = {n: jax.sharding.reshard(x, spec) for n, x in batch.items()}
        (got, _), ours = value_and_gradient(config, placed, 8)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), ours, gradient)
