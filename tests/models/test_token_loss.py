"""Token losses against scipy-free closed forms, whole and split over the vocabulary."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from dcft_jax.models import token_correct, token_nll
from dcft_jax.sharding import make_mesh


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.1, 30.0))
def test_nll_equals_the_log_of_the_softmax(seed, scale):
    rng = np.random.default_rng(seed)
    logits_BLV = scale * rng.standard_normal((2, 3, 7))
    targets_BL = rng.integers(0, 7, (2, 3))
    shifted = logits_BLV - logits_BLV.max(-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    expected_BL = -np.take_along_axis(log_probs, targets_BL[..., None], -1)[..., 0]
    got_BL = token_nll(jnp.asarray(logits_BLV, jnp.float32), jnp.asarray(targets_BL))
    assert got_BL.dtype == jnp.float32
    np.testing.assert_allclose(got_BL, expected_BL, rtol=1e-5, atol=1e-5)


def test_nll_is_float32_for_low_precision_logits():
    logits_BLV = jnp.zeros((1, 2, 8), jnp.bfloat16)
    nll_BL = token_nll(logits_BLV, jnp.zeros((1, 2), jnp.int32))
    assert nll_BL.dtype == jnp.float32
    np.testing.assert_allclose(nll_BL, np.log(8.0), rtol=1e-6)


def test_correct_is_the_first_argmax():
    logits_BLV = jnp.array([[[0.0, 2.0, 2.0], [3.0, 1.0, 3.0]]])
    assert token_correct(logits_BLV, jnp.array([[1, 0]])).tolist() == [[True, True]]
    assert token_correct(logits_BLV, jnp.array([[2, 2]])).tolist() == [[False, False]]


def test_split_vocabulary_gives_the_same_loss_and_gradient():
    logits_BLV = jax.random.normal(jax.random.key(0), (2, 3, 8))
    targets_BL = jnp.array([[0, 5, 7], [2, 3, 4]])

    def loss(logits_BLV, targets_BL):
        nll_BL = token_nll(logits_BLV, targets_BL)
        return nll_BL.sum(), token_correct(logits_BLV, targets_BL)

    grad = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (expected, right), expected_grad = grad(logits_BLV, targets_BL)
    mesh = make_mesh(dict(ability=1, data=2, model=4), jax.devices()[:8])
    with jax.set_mesh(mesh):
        split = jax.sharding.reshard(logits_BLV, P("data", None, "model"))
        rows = jax.sharding.reshard(targets_BL, P("data", None))
        (got, got_right), got_grad = grad(split, rows)
    assert jax.typeof(got_grad).sharding.spec == P("data", None, "model")
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    np.testing.assert_allclose(got_grad, expected_grad, atol=1e-6)
    np.testing.assert_array_equal(got_right, right)
