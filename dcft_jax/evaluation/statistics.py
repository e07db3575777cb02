"""Scores with their uncertainty: the sampled units are examples, never tokens."""

import dataclasses
import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from dcft_jax.evaluation.verifiers.pass_at_k import pass_at_k

_Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A score and how well it is known; nan where it cannot be known.

    Attributes:
      value: the point estimate.
      stderr: its standard error; nan with fewer than two examples.
      low: lower end of the 95 % interval.
      high: upper end of it.
      n: number of examples.
    """

    value: float
    stderr: float
    low: float
    high: float
    n: int


def ratio_of_sums(sum_N: np.ndarray, count_N: np.ndarray) -> tuple[float, float]:
    """Sum over count and its standard error, examples being the sampled units.

    Linearised variance of a ratio estimator (Cochran, Sampling Techniques, 2.10):
    tokens of one example are not independent, so they are not counted as such.
    """
    sum_N, count_N = sum_N.astype(np.float64), count_N.astype(np.float64)
    total, num_examples = count_N.sum(), len(count_N)
    if total == 0:
        return float("nan"), float("nan")
    mean = sum_N.sum() / total
    if num_examples < 2:
        return float(mean), float("nan")
    residual_N = sum_N - mean * count_N
    variance = num_examples / (num_examples - 1) * np.sum(residual_N**2) / total**2
    return float(mean), float(np.sqrt(variance))


def accuracy(correct: ArrayLike) -> Estimate:
    """Share of True and its Wilson score interval (Wilson 1927).

    The interval stays in [0, 1] and has a width at 0 and 1 too, where the standard
    error is 0. Without examples all is nan.

    Args:
      correct: bool, or 0 and 1, [N].

    Raises:
      ValueError: it is not one-dimensional or holds something else than 0 and 1.
    """
    correct_N = np.asarray(correct)
    if correct_N.ndim != 1:
        raise ValueError(f"correct has shape {correct_N.shape}; one bool per example")
    odd_N = correct_N[(correct_N != 0) & (correct_N != 1)]
    if odd_N.size:
        raise ValueError(
            f"correct holds {odd_N[0]!r}; only True and False (1 and 0) can be "
            "counted, so leave out what was not evaluated and threshold what is partial"
        )
    n = len(correct_N)
    value, stderr = ratio_of_sums(correct_N, np.ones(n))
    if n == 0:
        return Estimate(value, stderr, math.nan, math.nan, 0)
    z2 = _Z95**2
    centre = (value + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(value * (1 - value) / n + z2 / (4 * n**2)) * _Z95 / (1 + z2 / n)
    # Rounding must not leave the value outside where it is 0 or 1.
    low, high = min(max(0.0, centre - half), value), max(min(1.0, centre + half), value)
    return Estimate(value, stderr, low, high, n)


def chance_of_choices(num_choices: ArrayLike) -> float:
    """Expected accuracy of guessing uniformly among each question's choices.

    Raises:
      ValueError: no question, or a question with no choice.
    """
    num_choices_N = np.asarray(num_choices, np.float64)
    if num_choices_N.size == 0:
        raise ValueError("num_choices is empty; chance needs at least one question")
    if not np.all(num_choices_N >= 1):
        raise ValueError(
            f"num_choices holds {num_choices_N.min()}; every question has at least 1"
        )
    return float(np.mean(1.0 / num_choices_N))


def majority_chance(golds: Sequence[Hashable]) -> float:
    """Accuracy of the best constant answer: the share of the most frequent gold.

    Raises:
      ValueError: there is no gold answer.
    """
    if len(golds) == 0:
        raise ValueError("golds is empty; chance needs at least one question")
    return max(Counter(golds).values()) / len(golds)


def bits_per_byte(nats: ArrayLike, num_bytes: ArrayLike) -> Estimate:
    """Code length of the texts in bits per UTF-8 byte, comparable across tokenizers.

    Sum over sum, not the mean of ratios: a long text weighs as much as it is long.

    Args:
      nats: negative log-likelihood of each text, [N].
      num_bytes: length of each text in UTF-8 bytes, [N].

    Raises:
      ValueError: the shapes differ or a length is negative.
    """
    nats_N, bytes_N = np.asarray(nats, np.float64), np.asarray(num_bytes, np.float64)
    if nats_N.ndim != 1 or nats_N.shape != bytes_N.shape:
        raise ValueError(
            f"nats has shape {nats_N.shape} and num_bytes {bytes_N.shape}; "
            "both are one number per text"
        )
    if np.any(bytes_N < 0):
        raise ValueError(f"num_bytes holds {bytes_N.min()}; lengths are at least 0")
    value, stderr = ratio_of_sums(nats_N, bytes_N)
    return _normal(value / math.log(2), stderr / math.log(2), len(nats_N))


@dataclasses.dataclass(frozen=True)
class ChoiceAccuracy:
    """Accuracy by likelihood, as it is and per unit of length."""

    acc: Estimate
    acc_norm: Estimate


def choice_accuracy(
    logliks: Sequence[ArrayLike], lengths: Sequence[ArrayLike], gold: Sequence[int]
) -> ChoiceAccuracy:
    """How often the most likely choice of each question is the gold one.

    `acc` takes the greatest log-likelihood, `acc_norm` the greatest per unit of
    length; the first of equals wins. Lengths are those of the choices' texts without
    the space before them: in UTF-8 bytes this is lm-eval's `acc_bytes`, in characters
    its `acc_norm`; the two agree on ASCII.

    Args:
      logliks: for each of N questions, one log-likelihood in nats per choice.
      lengths: for each of N questions, one length per choice, bytes as a rule.
      gold: for each of N questions, the index of the right choice.

    Raises:
      ValueError: numbers of questions or choices differ, a log-likelihood is nan, a
        length is not positive, or a gold index is out of range.
    """
    if not len(logliks) == len(lengths) == len(gold):
        raise ValueError(
            f"logliks, lengths and gold have {len(logliks)}, {len(lengths)} and "
            f"{len(gold)} questions; they must agree"
        )
    plain, normalised = [], []
    for i, (loglik, length, right) in enumerate(
        zip(logliks, lengths, gold, strict=True)
    ):
        loglik_C = np.asarray(loglik, np.float64)
        length_C = np.asarray(length, np.float64)
        _check_question(i, loglik_C, length_C, right)
        plain.append(int(np.argmax(loglik_C)) == right)
        normalised.append(int(np.argmax(loglik_C / length_C)) == right)
    return ChoiceAccuracy(accuracy(plain), accuracy(normalised))


def mean_pass_at_k(num_samples: ArrayLike, num_correct: ArrayLike, k: int) -> Estimate:
    """Mean of `pass_at_k` over problems; problems are the sampled units.

    The interval is normal, cut to [0, 1].

    Args:
      num_samples: samples drawn for each problem, [N].
      num_correct: how many of them are correct, [N].
      k: as in `pass_at_k`.

    Raises:
      ValueError: shapes differ, or a problem has fewer than k samples.
    """
    samples_N, correct_N = np.asarray(num_samples), np.asarray(num_correct)
    if samples_N.ndim != 1 or samples_N.shape != correct_N.shape:
        raise ValueError(
            f"num_samples has shape {samples_N.shape} and num_correct "
            f"{correct_N.shape}; both are one count per problem"
        )
    pairs = zip(samples_N, correct_N, strict=True)
    passed_N = np.array([pass_at_k(int(n), int(c), k) for n, c in pairs])
    value, stderr = ratio_of_sums(passed_N, np.ones(len(passed_N)))
    whole = _normal(value, stderr, len(passed_N))
    if math.isnan(whole.low):
        return whole
    return dataclasses.replace(
        whole, low=max(0.0, whole.low), high=min(1.0, whole.high)
    )


def specialist_normalised(
    score: Estimate, base: Estimate, specialist: Estimate
) -> Estimate | None:
    """(score - base) / (specialist - base): 0 as the base, 1 as the specialist.

    None, "undefined", when the specialist's gain over the base is within two
    standard errors of zero, or when an error is unknown: there is nothing to
    normalise by. The standard error is that of the delta method for three
    independent estimates; measured on the same examples they are positively
    correlated as a rule, and it is then too large rather than too small. Works
    for losses as well as for accuracies. `n` is that of `score`.
    """
    gain = specialist.value - base.value
    gain_stderr = math.hypot(specialist.stderr, base.stderr)
    if not abs(gain) > 2 * gain_stderr:  # nan counts as undefined too
        return None
    value = (score.value - base.value) / gain
    # Derivatives: 1 / gain, (value - 1) / gain and -value / gain.
    stderr = math.hypot(
        score.stderr, (value - 1) * base.stderr, value * specialist.stderr
    ) / abs(gain)
    return _normal(value, stderr, score.n)


def _normal(value: float, stderr: float, n: int) -> Estimate:
    return Estimate(value, stderr, value - _Z95 * stderr, value + _Z95 * stderr, n)


def _check_question(
    i: int, loglik_C: np.ndarray, length_C: np.ndarray, right: int
) -> None:
    if loglik_C.ndim != 1 or loglik_C.shape != length_C.shape or not loglik_C.size:
        raise ValueError(
            f"question {i}: logliks has shape {loglik_C.shape} and lengths "
            f"{length_C.shape}; both are one number per choice"
        )
    if np.any(np.isnan(loglik_C)):
        raise ValueError(f"question {i}: logliks holds nan; it cannot be ranked")
    if not np.all(length_C > 0):
        raise ValueError(
            f"question {i}: lengths holds {length_C.min()}; an empty choice has no "
            "likelihood per byte"
        )
    if not 0 <= right < len(loglik_C):
        raise ValueError(
            f"question {i}: gold={right} must be the index of one of its "
            f"{len(loglik_C)} choices"
        )
