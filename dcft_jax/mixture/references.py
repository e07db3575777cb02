"""Which loss an ability is measured against."""

import jax
import jax.numpy as jnp

from dcft_jax.mixture.power_law import PowerLaw


def reference_losses(
    given_K: jax.Array, law: PowerLaw, num_stderr: float = 1.0
) -> jax.Array:
    """`reference_loss_K` of a feedback: given, else fitted, else nan.

    Fitted is the irreducible loss minus `num_stderr` of its standard errors, not below
    0. Lower is the careful side: an ability whose reference is too high looks finished
    and gets no more data; one whose reference is too low is fed for longer.

    Args:
      given_K: from the config; nan where there is none.
      law: of the losses on the same mix-val rows, from `fit_power_law`.
      num_stderr: >= 0.

    Raises:
      ValueError: for `num_stderr` out of range.
    """
    if not 0 <= num_stderr < float("inf"):
        raise ValueError(f"num_stderr is {num_stderr}, expected in [0, inf).")
    fitted_K = law.irreducible_K - num_stderr * law.irreducible_stderr_K
    fitted_K = jnp.maximum(fitted_K, 0.0)  # nan stays nan
    return jnp.where(jnp.isfinite(given_K), given_K, fitted_K)
