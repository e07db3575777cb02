from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax.mixture import SIGNALS, normalised_gap, paired_progress, unmeasured
from dcft_jax.mixture.signals import MIN_RANGE, MIN_RANGE_STDERR


def feedback(**fields):
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in fields.items()}
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
        fields = dict(
            progress_K=[0.4],
            progress_stderr_K=[0.3],
            reference_loss_K=[1.0],
            initial_loss_K=[3.0],
        )
        return paired_progress(
            feedback(**{k: np.multiply(v, unit) for k, v in fields.items()})
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
    assert len(leaves) == 14
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
