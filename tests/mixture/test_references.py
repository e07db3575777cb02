import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.mixture import fit_power_law, reference_losses
from tests.mixture.test_power_law import history_of

POSITION = np.geomspace(1e3, 1e7, 40)
NAN = np.nan


def law_of(noise, eps=(1.2, 1.2)):
    rng = np.random.default_rng(0)
    fall = 0.9 * (POSITION[:, None] / 1e3) ** -0.5
    scatter = noise * rng.standard_normal((40, len(eps)))
    return fit_power_law(history_of(POSITION[:, None], np.array(eps) + fall + scatter))


def test_given_goes_first_then_fitted_then_nothing():
    law = law_of(noise=np.array([0.0, 0.0, 9.0]), eps=(1.2, 1.2, 1.2))
    reference_K = reference_losses(jnp.array([0.7, NAN, NAN]), law)
    np.testing.assert_allclose(reference_K, [0.7, 1.2, NAN], rtol=1e-3)


def test_an_uncertain_fit_is_taken_lower():
    law, given = law_of(noise=0.02), jnp.full(2, NAN)
    assert np.all(law.irreducible_stderr_K > 0.002)
    for z in (0.0, 1.0, 2.0):
        expected = law.irreducible_K - z * law.irreducible_stderr_K
        np.testing.assert_allclose(reference_losses(given, law, z), expected, rtol=1e-6)


def test_a_reference_is_not_below_zero():
    law = law_of(noise=0.01, eps=(0.02, 0.02))
    assert np.isfinite(law.irreducible_K).all()
    np.testing.assert_array_equal(reference_losses(jnp.full(2, NAN), law, 1e3), 0)


def test_about_one_in_six_references_is_above_the_truth():
    reference_K = reference_losses(jnp.full(400, NAN), law_of(0.01, (1.2,) * 400))
    assert 0.11 < np.mean(reference_K > 1.2) < 0.21


def test_bad_number_of_errors():
    with pytest.raises(ValueError, match="num_stderr"):
        reference_losses(jnp.full(2, NAN), law_of(0.0), -1.0)
