"""Chance that one of k samples solves a problem, estimated from more than k samples."""


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased estimate of pass@k from n samples of which c are correct.

    `1 - C(n - c, k) / C(n, k)`, written as a product of numbers in [0, 1] so that
    no binomial coefficient overflows. It takes min(k, c) multiplications.

    Source: Chen et al. 2021, arXiv:2107.03374, equation 1. (The plug-in estimate
    `1 - (1 - c/n)^k` is biased downwards, section 2.1 of the same paper.)

    Raises:
      ValueError: not 0 <= num_correct <= num_samples, or not 1 <= k <= num_samples.
    """
    if not 0 <= num_correct <= num_samples:
        raise ValueError(
            f"num_correct={num_correct} must be between 0 and num_samples={num_samples}"
        )
    if not 1 <= k <= num_samples:
        raise ValueError(
            f"k={k} must be between 1 and num_samples={num_samples}; "
            "draw more samples or ask for a smaller k"
        )
    if num_samples - num_correct < k:
        return 1.0
    # C(n-c, k) / C(n, k) is symmetric in c and k: take the shorter product.
    short, long = sorted((num_correct, k))
    all_fail = 1.0
    for i in range(short):
        all_fail *= 1.0 - long / (num_samples - i)
    return 1.0 - all_fail
