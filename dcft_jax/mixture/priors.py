"""The prior `p0_K`: the mixture a rule starts from and is anchored to."""

from collections.abc import Sequence

import numpy as np

KINDS = ("uniform", "proportional", "temperature", "given")


def prior(
    kind: str,
    sizes_K: Sequence[float],
    temperature: float = 1.0,
    given: Sequence[float] | None = None,
) -> np.ndarray:
    """The prior of K abilities, float32, positive, sum 1.

    Args:
      kind: "uniform"; "proportional" to the sizes; "temperature": proportional to
        `size ** (1 / temperature)` (1 is proportional, large is uniform); "given".
      sizes_K: size of each ability, in any one unit.
      temperature: for "temperature".
      given: for "given", in the order of the abilities.

    Raises:
      ValueError: for an unknown kind, sizes or a temperature that are not positive,
        or given weights that are not positive or do not sum to 1 within 1e-6.
    """
    size_K = np.asarray(sizes_K, np.float64)
    if kind not in KINDS:
        raise ValueError(f"mixture.prior is {kind!r}, expected one of {KINDS}.")
    if size_K.ndim != 1 or not np.all(np.isfinite(size_K) & (size_K > 0)):
        raise ValueError(f"sizes of the abilities must be positive, got {size_K}.")
    if kind == "given":
        return _check_given(given, len(size_K))
    if kind == "temperature" and not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"mixture.temperature is {temperature}, expected > 0.")
    power = {"uniform": 0.0, "proportional": 1.0}.get(kind, 1.0 / temperature)
    # Relative to the largest, so that a small temperature cannot overflow.
    raw_K = (size_K / size_K.max()) ** power
    return (raw_K / raw_K.sum()).astype(np.float32)


def _check_given(given: Sequence[float] | None, num_abilities: int) -> np.ndarray:
    if given is None or len(given) != num_abilities:
        raise ValueError(
            f"mixture.weights is {given}, expected {num_abilities} weights, one per "
            'ability, because mixture.prior is "given".'
        )
    given_K = np.asarray(given, np.float64)
    if not np.all(given_K > 0):
        raise ValueError(
            f"mixture.weights is {given}, every weight must be > 0; to leave an "
            "ability out, remove it from `abilities`."
        )
    if not abs(given_K.sum() - 1) <= 1e-6:
        raise ValueError(
            f"mixture.weights is {given} and sums to {given_K.sum():.9g}, expected 1 "
            "(within 1e-6)."
        )
    return (given_K / given_K.sum()).astype(np.float32)
