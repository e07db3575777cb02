"""Feedback made of gradients, for the rules that read them."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from dcft_jax.mixture import Feedback, unmeasured


def make_gradients(seed: int, num_abilities: int = 4, length: int = 12):
    """Train and mix-val gradients `[K, N]`, float64, with something in common."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(length)
    train = 0.5 * common + rng.standard_normal((num_abilities, length))
    val = train + 0.3 * rng.standard_normal((num_abilities, length))
    return train, val


def feedback_of(train_KN, val_KN=None, **values) -> Feedback:
    """All observed; other fields by name."""
    arrays = {"gram_KK": train_KN @ train_KN.T, **values}
    if val_KN is not None:
        arrays["transfer_KK"] = val_KN @ train_KN.T
    observed_K = arrays.pop("observed_K", np.ones(len(train_KN), bool))
    return replace(
        unmeasured(len(train_KN)),
        observed_K=jnp.asarray(observed_K),
        **{name: jnp.asarray(value, jnp.float32) for name, value in arrays.items()},
    )


def normalised(raw_K):
    return raw_K / raw_K.sum()
