"""From weights to numbers of slots, on the host.

Error diffusion. Ability k is owed `S * w_k` slots in a step. It gets at least the
whole part; the slots that are left go, one each, to the abilities that are owed most
(their fraction plus what they are still owed from before: the credit). So every step
has `floor(S w_k) <= count_k <= ceil(S w_k)`, and the counts over time track the
weights.

How closely: let b_m = m (K - m) / 2. If before a step any m credits sum to at most
b_m, they do so after it. (Let R slots be left, and M any m abilities. If M got all R,
its sum rose by at most R - R. Otherwise let P be the part of M that got one, N the
rest of it, n its number, and O the o > 0 abilities outside M that got one. A fraction
is at most 1, so the sum over P did not rise; the average of N is at most that of N
and O together, since O was owed more; hence the sum over M is at most
(1 - t) b_(m-n) + t (b_(m+o) + o) with t = n / (n + o), and that is at most b_m because
b is a parabola: its gap to the chord is n o / 2 >= t o.) Exchanging "got" and "did not
get" changes the sign of every credit, so the bound holds from below too:

    |credit_k| <= (K - 1) / 2      for any sequence of weights.

That is one slot for K <= 3. No method that does not know the future weights can
promise less than 1/2 + 1/3 + ... + 1/K: let the weights be equal over those that have
not been served yet. Weights that do not aim at it stay near one slot for any K.
"""

import numpy as np


def allocate(
    weights_K: np.ndarray, credit_K: np.ndarray, num_slots: int
) -> tuple[np.ndarray, np.ndarray]:
    """How many slots of a step each ability gets.

    Deterministic: a function of its arguments, ties go to the lower index. Not a
    random draw, so nothing starves.

    Args:
      weights_K: on the simplex.
      credit_K: float32, what each ability is still owed, in slots; zeros at first.
      num_slots: S, at least 1.

    Returns:
      counts_K: int64, sum S.
      credit_K: float32, for the next step; sum 0. It is all the state there is.

    Raises:
      ValueError: for weights off the simplex (by more than 1e-3), credits of another
        shape or not finite, or no slots.
    """
    weights_K = np.asarray(weights_K, np.float64)
    _check(weights_K, np.asarray(credit_K), num_slots)
    share_K = num_slots * weights_K / weights_K.sum()
    counts_K = np.floor(share_K).astype(np.int64)
    owed_K = np.asarray(credit_K, np.float64) + share_K - counts_K
    left = num_slots - counts_K.sum()
    chosen = np.argsort(-owed_K, kind="stable")[:left]
    counts_K[chosen] += 1
    owed_K[chosen] -= 1
    # Counts sum to S exactly, so a sum of credits is rounding; it must not build up.
    return counts_K, (owed_K - owed_K.mean()).astype(np.float32)


def _check(weights_K: np.ndarray, credit_K: np.ndarray, num_slots: int) -> None:
    if num_slots < 1:
        raise ValueError(f"num_slots is {num_slots}, expected at least 1.")
    if credit_K.shape != weights_K.shape or not np.all(np.isfinite(credit_K)):
        raise ValueError(
            f"credit {credit_K} must be finite with shape {weights_K.shape}."
        )
    if not (np.all(weights_K >= 0) and abs(weights_K.sum() - 1) <= 1e-3):
        raise ValueError(
            f"mixture weights {weights_K} (sum {weights_K.sum()}) are not on the "
            "simplex."
        )
