from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax.mixture import (
    NEEDS_OF_SIGNALS,
    SIGNALS,
    Feedback,
    accuracy,
    gradient_alignment,
    improvement_rate,
    mirror_descent,
    normalised_gap,
    paired_progress,
    unmeasured,
)
from dcft_jax.mixture.rule import GRAMIAN, TRANSFER
from dcft_jax.mixture.signals import MIN_RANGE, MIN_RANGE_STDERR


def feedback(**values):
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
    num_abilities = len(next(iter(arrays.values())))
    observed_K = arrays.pop("observed_K", jnp.ones(num_abilities)) > 0
    return replace(unmeasured(num_abilities), observed_K=observed_K, **arrays)


def test_normalised_gap():
    gap = normalised_gap(
        feedback(
            val_loss_K=[3.0, 2.0, 1.0, 0.5, 4.0],
            reference_loss_K=[1.0] * 5,
            initial_loss_K=[3.0] * 5,
            val_loss_stderr_K=[0.0] * 5,
        )
    )
    np.testing.assert_allclose(gap, [1.0, 0.5, 0.0, 0.0, 1.5])


def test_a_gap_within_its_error_counts_as_none():
    gap = normalised_gap(
        feedback(
            val_loss_K=[2.0, 1.2, 1.1],
            reference_loss_K=[1.0] * 3,
            initial_loss_K=[3.0] * 3,
            val_loss_stderr_K=[0.1, 0.1, 0.11],
        )
    )
    np.testing.assert_allclose(gap, [0.5 * 0.99, 0.1 * 0.75, 0.0], rtol=1e-5)


def test_nothing_to_learn_is_no_gap_and_noise_is_not_blown_up():
    gap = normalised_gap(
        feedback(
            val_loss_K=[1.0, 1.01, 2.0],
            reference_loss_K=[1.5, 1.0, 1.0],
            initial_loss_K=[1.0, 1.0, 1.1],
            val_loss_stderr_K=[0.0, 0.0, 0.05],
        )
    )
    forgotten = (1 - 0.05**2) / (MIN_RANGE_STDERR * 0.05)
    np.testing.assert_allclose(gap, [0.0, 0.01 / MIN_RANGE, forgotten], rtol=1e-3)


def test_paired_progress():
    progress = paired_progress(
        feedback(
            progress_K=[0.4, -0.2, 0.4, 0.0],
            progress_stderr_K=[0.0, 0.0, 0.1, 0.1],
            reference_loss_K=[1.0] * 4,
            initial_loss_K=[3.0] * 4,
        )
    )
    np.testing.assert_allclose(progress, [0.2, -0.1, 0.1875, 0.0], rtol=1e-6)


def test_progress_does_not_depend_on_the_unit_of_the_loss():
    def progress(unit):
        values = dict(
            progress_K=[0.4],
            progress_stderr_K=[0.3],
            reference_loss_K=[1.0],
            initial_loss_K=[3.0],
        )
        return paired_progress(
            feedback(**{k: np.multiply(v, unit) for k, v in values.items()})
        )

    np.testing.assert_allclose(progress(7.0), progress(1.0), rtol=1e-6)


def test_without_information_every_signal_is_nan():
    known = dict(
        val_loss_K=[1.0, np.nan],
        reference_loss_K=[0.0, 0.0],
        initial_loss_K=[2.0, 2.0],
        progress_K=[0.1, np.nan],
        observed_K=[0.0, 1.0],
    )
    for signal in SIGNALS.values():
        assert np.all(np.isnan(signal(feedback(**known))))
        assert np.all(np.isnan(signal(unmeasured(3))))


def test_an_unknown_reference_gives_no_gap_but_progress():
    known = feedback(
        val_loss_K=[1.0],
        reference_loss_K=[np.nan],
        initial_loss_K=[2.0],
        progress_K=[0.1],
        observed_K=[1.0],
    )
    assert np.isnan(normalised_gap(known)).all()
    np.testing.assert_allclose(paired_progress(known), 0.1 / 2.0, rtol=1e-6)


def test_feedback_is_a_pytree_of_arrays():
    leaves = jax.tree.leaves(unmeasured(3, step=7))
    assert len(leaves) == len(fields(Feedback))
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert {str(leaf.dtype) for leaf in leaves} == {"float32", "int32", "bool"}


def test_improvement_rate_is_the_falling_slope_freed_of_noise():
    rate = improvement_rate(
        feedback(
            slope_K=[-0.4, 0.2, -0.4, -0.1],
            slope_stderr_K=[0.0, 0.0, 0.1, 0.2],
            reference_loss_K=[1.0] * 4,
            initial_loss_K=[3.0] * 4,
        )
    )
    np.testing.assert_allclose(rate, [0.2, -0.1, 0.1875, 0.0], rtol=1e-6)


def test_accuracy_is_what_is_left_of_it():
    known = feedback(accuracy_K=[0.0, 0.3, 1.0, np.nan])
    np.testing.assert_allclose(accuracy(known), [1.0, 0.7, 0.0, np.nan], rtol=1e-6)
    hidden = replace(known, observed_K=jnp.array([True, False, True, True]))
    assert np.isnan(accuracy(hidden)[1])


def gradients(seed, scale_K, num_abilities=4):
    """Train and mix-val gradients `[K, 12]` in float64, and their feedback."""
    rng = np.random.default_rng(seed)
    train = rng.standard_normal((num_abilities, 12)) * scale_K[:, None]
    val = train + 0.3 * scale_K[:, None] * rng.standard_normal((num_abilities, 12))
    known = feedback(
        accuracy_K=[0.0] * num_abilities,
        gram_KK=train @ train.T,
        transfer_KK=val @ train.T,
    )
    return train, val, known


def test_gradient_alignment_is_the_mean_cosine():
    train, val, known = gradients(0, np.ones(4))
    norm = np.linalg.norm(train, axis=1)
    cosine = np.clip(val @ train.T / np.outer(norm, norm), -1, 1)
    expected = cosine.mean(axis=0)
    np.testing.assert_allclose(gradient_alignment(known), expected, rtol=1e-5)


def test_gradient_alignment_does_not_see_the_size_of_gradients():
    base = gradient_alignment(gradients(1, np.ones(4))[2])
    scaled = gradient_alignment(gradients(1, np.array([1e-3, 1.0, 20.0, 1e3]))[2])
    np.testing.assert_allclose(scaled, base, rtol=1e-4, atol=1e-6)


def test_gradient_alignment_goes_over_what_is_known():
    train, val, known = gradients(2, np.ones(4))
    hidden = replace(
        known,
        transfer_KK=known.transfer_KK.at[:, 1].set(jnp.nan).at[2].set(jnp.nan),
        gram_KK=known.gram_KK.at[3, 3].set(-0.1),  # all noise
    )
    norm = np.linalg.norm(train, axis=1)
    cosine = np.clip(val @ train.T / np.outer(norm, norm), -1, 1)
    expected = [cosine[[0, 1], 0].mean(), np.nan, cosine[[0, 1], 2].mean(), np.nan]
    np.testing.assert_allclose(gradient_alignment(hidden), expected, rtol=1e-5)


def test_mirror_descent_needs_what_its_signals_need():
    assert NEEDS_OF_SIGNALS.keys() <= SIGNALS.keys()
    assert mirror_descent().needs == frozenset()
    both = mirror_descent(signals={"accuracy": 1.0, "gradient_alignment": 1.0})
    assert both.needs == {GRAMIAN, TRANSFER}
