import dataclasses

import jax.numpy as jnp
import numpy as np

from dcft_jax.conflict import Noise, diagnose
from dcft_jax.training.conflict_log import (
    conflict_metrics,
    debiased_cosines,
    noise_scale,
)

NAN = float("nan")


def step(gram, signal, noise):
    measured = Noise(jnp.float32(signal), jnp.float32(noise), jnp.full((2, 2), 0.1))
    weights_K = jnp.array([0.5, 0.5])
    info = diagnose(jnp.float32(gram), weights_K, weights_K, measured)
    values = {k: np.asarray(v) for k, v in dataclasses.asdict(info).items()}
    return dataclasses.replace(info, **values)


def test_ratios_of_means_not_means_of_ratios():
    window = [
        step([[2.0, -1.0], [-1.0, 4.0]], [1.0, 2.0], [10.0, 30.0]),
        step([[2.0, 0.0], [0.0, 4.0]], [-0.5, 4.0], [20.0, NAN]),
    ]
    # Signals: 0.25 and 3; noises: 15 and 30.
    np.testing.assert_allclose(noise_scale(window), [60.0, 10.0])
    np.testing.assert_allclose(
        debiased_cosines(window)[0, 1], -0.5 / np.sqrt(0.25 * 3.0), rtol=1e-6
    )
    metrics = conflict_metrics(window, ("maths", "code"), ("all",))
    np.testing.assert_allclose(metrics["conflict/rate"], 0.5)
    np.testing.assert_allclose(metrics["conflict/significant_rate"], 0.5)
    np.testing.assert_allclose(
        metrics["conflict/cosine/maths/code"], -0.5 / np.sqrt(8), rtol=1e-6
    )
    assert metrics["conflict/acted"] == 0
    assert not any("block" in key for key in metrics)


def test_no_gradient_beyond_its_noise_has_no_scale():
    window = [step([[1.0, 0.5], [0.5, 1.0]], [-1.0, NAN], [3.0, NAN])]
    assert np.isnan(noise_scale(window)).all()
    assert np.isnan(debiased_cosines(window)[0, 1])


def test_blocks_are_given_by_name():
    window = [
        step([[[1.0, 0.5], [0.5, 1.0]], [[1.0, -0.5], [-0.5, 1.0]]], [1, 1], [1, 1])
    ]
    metrics = conflict_metrics(window, ("maths", "code"), ("embed", "layers.0"))
    assert metrics["conflict/block_cosine/embed/maths/code"] == 0.5
    assert metrics["conflict/block_cosine/layers.0/maths/code"] == -0.5
