"""Temperature, top-k and top-p against NumPy, and draws against their distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from dcft_jax.models.sampling import Sampling, choose, filter_logits


def numpy_probabilities(logits_V, temperature, top_k, top_p):
    """One token after the other, most likely first, in float64."""
    scaled_V = np.asarray(logits_V, np.float64) / temperature
    order = np.argsort(-scaled_V, kind="stable")
    kept = list(order)
    if top_k:
        least = scaled_V[order[min(top_k, len(order)) - 1]]
        kept = [v for v in order if scaled_V[v] >= least]
    share_V = np.zeros(len(order))
    share_V[kept] = np.exp(scaled_V[kept] - scaled_V.max())
    share_V /= share_V.sum()
    for v in kept:
        above = share_V[scaled_V > scaled_V[v]].sum()
        if top_p < 1 and above >= top_p:
            kept = [u for u in kept if scaled_V[u] > scaled_V[v]]
            break
    out_V = np.zeros(len(order))
    out_V[kept] = share_V[kept] / share_V[kept].sum()
    return out_V


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.3, 1.0, 2.5]),
    st.sampled_from([0, 1, 3, 12, 50]),
    st.floats(0.01, 1.0),
    st.booleans(),
)
def test_what_is_left_equals_numpy(seed, temperature, top_k, top_p, ties):
    logits_V = 2 * np.random.default_rng(seed).standard_normal(12).astype(np.float32)
    logits_V = np.round(logits_V) if ties else logits_V
    expected_V, nearly_V = (
        numpy_probabilities(logits_V, temperature, top_k, p)
        for p in (top_p, top_p - 1e-5)
    )
    # A threshold that is hit exactly is a matter of rounding.
    assume(((expected_V > 0) == (nearly_V > 0)).all())
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    got_V = jax.nn.softmax(filter_logits(sampling, jnp.asarray(logits_V)[None])[0])
    np.testing.assert_allclose(got_V, expected_V, atol=1e-5)
    np.testing.assert_array_equal(got_V > 0, expected_V > 0)


def test_top_p_looks_at_what_top_k_leaves():
    logits_V = np.log([0.4, 0.3, 0.2, 0.1])
    # Of the two that top-k leaves the first has 0.57: enough. Of all four it has 0.4.
    both = numpy_probabilities(logits_V, 1.0, 2, 0.5)
    np.testing.assert_allclose(both, [1, 0, 0, 0])
    sampling = Sampling(temperature=1.0, top_k=2, top_p=0.5)
    got = filter_logits(sampling, jnp.asarray(logits_V, jnp.float32)[None])
    np.testing.assert_array_equal(np.isfinite(got[0]), both > 0)


def test_top_k_and_top_p_keep_what_transformers_keeps():
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    logits_BV = np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32)
    for temperature, k, p in ((0.7, 9, 0.8), (1.3, 40, 0.3), (1.0, 1, 0.9)):
        expected = torch.tensor(logits_BV)
        for warp in (
            process.TemperatureLogitsWarper(temperature),
            process.TopKLogitsWarper(k),
            process.TopPLogitsWarper(p),
        ):
            expected = warp(None, expected)
        sampling = Sampling(temperature=temperature, top_k=k, top_p=p)
        got = filter_logits(sampling, jnp.asarray(logits_BV))
        np.testing.assert_array_equal(
            np.isfinite(got), np.isfinite(expected.numpy()), err_msg=f"{k} {p}"
        )
        np.testing.assert_allclose(
            jax.nn.softmax(got), expected.softmax(-1).numpy(), atol=1e-6
        )


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.6, 0, 1.0), (1.5, 6, 1.0), (1.0, 0, 0.7), (2.0, 8, 0.8)],
)
def test_draws_have_the_distribution(temperature, top_k, top_p):
    logits_V = np.random.default_rng(1).standard_normal(12)
    share_V = numpy_probabilities(logits_V, temperature, top_k, top_p)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    rows = 50_000
    logits_BV = jnp.broadcast_to(jnp.asarray(logits_V, jnp.float32), (rows, 12))
    key_B = jax.random.split(jax.random.key(0), rows)
    tokens_B = jax.jit(choose, static_argnums=0)(sampling, logits_BV, key_B)
    counts_V = np.bincount(tokens_B, minlength=12)
    allowed = share_V > 0
    assert counts_V[~allowed].sum() == 0
    assert stats.chisquare(counts_V[allowed], rows * share_V[allowed]).pvalue > 0.01
    # The test would see a wrong temperature.
    wrong_V = np.where(allowed, np.exp(logits_V / temperature / 2), 0)
    wrong_V = rows * wrong_V / wrong_V.sum()
    assert stats.chisquare(counts_V[allowed], wrong_V[allowed]).pvalue < 1e-3


def test_a_tiny_temperature_is_greedy_and_finite():
    logits_BV = jnp.asarray([[1.0, 3.0, 2.0], [90.0, -90.0, 89.9]])
    key_B = jax.random.split(jax.random.key(0), 2)
    for temperature in (0.0, 1e-30):
        sampling = Sampling(temperature=temperature, top_p=0.5)
        assert choose(sampling, logits_BV, key_B).tolist() == [1, 0]


def test_greedy_takes_the_first_of_equals():
    logits_BV = jnp.asarray([[0.0, 2.0, 2.0]])
    assert choose(Sampling(), logits_BV, jax.random.split(jax.random.key(0), 1)) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(temperature=-0.1), r"temperature=-0.1 must be .* at least 0"),
        (dict(temperature=float("nan")), r"temperature=nan"),
        (dict(temperature=float("inf")), r"temperature=inf"),
        (dict(top_k=-1), r"top_k=-1 must be .* at least 0"),
        (dict(top_k=1.5), r"top_k=1.5 must be a whole number"),
        (dict(top_p=0.0), r"top_p=0.0 must be in \(0, 1\]"),
        (dict(top_p=1.1), r"top_p=1.1 must be in \(0, 1\]"),
        (dict(top_p=float("nan")), r"top_p=nan must be in \(0, 1\]"),
    ],
)
def test_options_out_of_range_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**fields)
