"""What an export is compared by."""

import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from dcft_jax.training.divergence import (
    LIMITS,
    Divergence,
    divergence,
    require_close,
    require_same,
)


def test_it_is_the_divergence_of_kullback_and_leibler():
    rng = np.random.default_rng(0)
    a_BLV, b_BLV = rng.normal(0, 3, (2, 3, 5, 40))
    known_BL = rng.random((3, 5)) < 0.6
    found = divergence(
        log_softmax(a_BLV, -1).astype(np.float32),
        log_softmax(b_BLV, -1).astype(np.float32),
        known_BL,
    )
    kl_BL = rel_entr(softmax(a_BLV, -1), softmax(b_BLV, -1)).sum(-1)[known_BL]
    np.testing.assert_allclose(found, (kl_BL.mean(), kl_BL.max(), known_BL.sum()), 1e-5)


def test_small_ones_are_not_lost_in_rounding():
    rng = np.random.default_rng(0)
    logits_BLV = rng.normal(0, 3, (1, 4, 5000))
    close_BLV = logits_BLV + rng.normal(0, 1e-4, logits_BLV.shape)
    exact = rel_entr(softmax(logits_BLV, -1), softmax(close_BLV, -1)).sum(-1)
    found = divergence(
        log_softmax(logits_BLV, -1).astype(np.float32),
        log_softmax(close_BLV, -1).astype(np.float32),
        np.ones((1, 4), bool),
    )
    np.testing.assert_allclose(found.mean, exact.mean(), rtol=0.05)


@pytest.mark.parametrize("dtype", LIMITS)
def test_limits(dtype: str):
    mean, most = LIMITS[dtype]
    require_close(Divergence(mean, most, 9), dtype, "x")
    for wrong in ((2 * mean, most), (mean, 2 * most), (np.nan, 0.0), (0.0, np.nan)):
        with pytest.raises(ValueError, match=f"x: predictions differ .* {dtype}"):
            require_close(Divergence(*wrong, 9), dtype, "x")


def test_one_bit_is_a_difference():
    params = {"a": {"kernel": np.ones((2, 3), np.float32)}, "b": np.zeros(2)}
    require_same(params, params, "x")
    other = {"a": {"kernel": params["a"]["kernel"].copy()}, "b": np.zeros(2)}
    other["a"]["kernel"][1, 1] = np.nextafter(np.float32(1), np.float32(2))
    with pytest.raises(ValueError, match="x: a/kernel read back other"):
        require_same(params, other, "x")
    half = {**params, "b": np.zeros(2, np.float16)}
    with pytest.raises(ValueError, match="x: b read back other"):
        require_same(params, half, "x")
