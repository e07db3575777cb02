"""Noise of gradients, from slots whose true gradients and noise are known."""

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax.conflict import ability_gramian, slot_noise

DIM = 400
ABILITY_S = np.array([0, 0, 0, 0, 1, 1, 1, 1])
COUNT_S = np.array([8, 4, 8, 12, 10, 10, 6, 14], np.float32)
TRUE = np.zeros((2, DIM))
TRUE[0, 0] = 1.0
TRUE[1, :2] = -0.5 * 2.0, np.sqrt(0.75) * 2.0  # cosine -0.5, norm 2
TOKEN_NOISE = np.array([20.0, 80.0])  # variance of one token's gradient, summed


def draws(number: int, seed: int = 0) -> np.ndarray:
    """Gradients of sums over tokens, `[number, S, DIM]`."""
    rng = np.random.default_rng(seed)
    scale_S = np.sqrt(TOKEN_NOISE[ABILITY_S] / DIM * COUNT_S)
    noise = rng.standard_normal((number, len(COUNT_S), DIM)) * scale_S[:, None]
    return TRUE[ABILITY_S] * COUNT_S[:, None] + noise


@jax.jit
@jax.vmap
def measure(grads_S):
    gram_SS = jnp.matmul(grads_S, grads_S.T, precision="highest")
    gram_KK, _, share_KS = ability_gramian(gram_SS, COUNT_S, ABILITY_S, 2)
    return gram_KK, slot_noise(gram_SS, jnp.asarray(COUNT_S), share_KS)


def test_signal_and_noise_are_unbiased_where_the_plain_norm_is_not():
    gram_KK, noise = measure(draws(3000).astype(np.float32))
    square_K = np.array([1.0, 4.0])
    error_K = np.std(noise.signal_K, axis=0) / np.sqrt(3000)
    assert np.all(np.abs(noise.signal_K.mean(0) - square_K) < 4 * error_K)
    np.testing.assert_allclose(noise.noise_K.mean(0), TOKEN_NOISE, rtol=0.02)
    total_K = np.array([32.0, 40.0])
    inflated_K = square_K + TOKEN_NOISE / total_K
    plain_K = np.diagonal(gram_KK, axis1=1, axis2=2).mean(0)
    np.testing.assert_allclose(plain_K, inflated_K, rtol=0.03)
    cosine = gram_KK[:, 0, 1].mean() / np.sqrt(np.prod(noise.signal_K.mean(0)))
    np.testing.assert_allclose(cosine, -0.5, atol=0.03)


def test_the_standard_error_is_the_spread_over_batches():
    gram_KK, noise = measure(draws(3000, 1).astype(np.float32))
    spread = np.std(gram_KK[:, 0, 1])
    # First order, so a little too large rather than too small.
    ratio = np.sqrt(np.mean(noise.stderr_KK[:, 0, 1] ** 2)) / spread
    assert 0.95 < ratio < 1.3
    np.testing.assert_array_equal(noise.stderr_KK[:, 0, 1], noise.stderr_KK[:, 1, 0])


def test_equal_slots_have_no_noise():
    grads_S = (TRUE[ABILITY_S] * COUNT_S[:, None]).astype(np.float32)
    _, noise = measure(grads_S[None])
    np.testing.assert_allclose(noise.signal_K[0], [1.0, 4.0], rtol=1e-5)
    np.testing.assert_allclose(noise.noise_K[0], 0.0, atol=1e-3)
    np.testing.assert_allclose(noise.stderr_KK[0], 0.0, atol=1e-5)


def test_one_slot_knows_no_noise():
    gram_SS = jnp.asarray(draws(1)[0, 3:] @ draws(1)[0, 3:].T, jnp.float32)
    gram_SS = gram_SS.at[2].set(jnp.nan).at[:, 2].set(jnp.nan)  # one of the four
    count_S, ability_S = jnp.asarray(COUNT_S[3:]), ABILITY_S[3:]
    _, _, share_KS = ability_gramian(gram_SS, count_S, ability_S, 2)
    noise = slot_noise(gram_SS, count_S, share_KS)
    np.testing.assert_array_equal(np.isnan(noise.signal_K), [True, False])
    np.testing.assert_array_equal(np.isnan(noise.noise_K), [True, False])
    assert np.isnan(noise.stderr_KK[0]).all() and np.isfinite(noise.stderr_KK[1, 1])
