"""Response-token loss and exact match of one ability's held-out examples.

With one reference reply, a greedy decoder reproduces it exactly when every one
of its tokens is the argmax given the tokens before it. So exact match needs one
teacher-forced forward pass, and no decoding.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dcft_jax.evaluation.statistics import ratio_of_sums
from dcft_jax.models import ModelConfig, score_responses
from dcft_jax.sharding import replicate

Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Scores:
    """Sums over the response tokens of each of N examples, in their own order."""

    loss_sum_N: np.ndarray  # float32, nats; nan: not evaluated, all else is 0
    count_N: np.ndarray  # float32, response tokens
    wrong_N: np.ndarray  # float32, tokens that are not the argmax
    scored_N: np.ndarray  # bool: whole, and with a single reference reply


def make_eval_step(
    config: ModelConfig, max_predicted: int | None = None
) -> Callable[[Any, Batch], Batch]:
    """Jitted `(params, batch) -> sums`, each float32 [S, B, M] over M segments.

    The batch holds `tokens`, `loss_mask`, `segments`, `positions` [S, B, L] and
    `scored` [S, B, M], whose shape says how many examples a row may hold.
    `max_predicted`: see `score_responses`.
    """

    def one_slot(params: Any, slot: Batch) -> Batch:
        nll_BL, correct_BL, mask_BL = score_responses(
            config, params, slot, max_predicted=max_predicted
        )
        wrong_BL = mask_BL & ~correct_BL
        num_segments = slot["scored"].shape[-1]
        member_BLM = jax.nn.one_hot(slot["segments"] - 1, num_segments)

        def per_example(x_BL: jax.Array) -> jax.Array:
            # In full float32: accelerators would round each loss to bfloat16.
            x_BL = x_BL.astype(jnp.float32)
            highest = jax.lax.Precision.HIGHEST
            return jnp.einsum("bl,blm->bm", x_BL, member_BLM, precision=highest)

        return {
            "loss_sum": per_example(nll_BL),
            "count": per_example(mask_BL),
            "wrong": per_example(wrong_BL),
        }

    @jax.jit
    def eval_step(params: Any, batch: Batch) -> Batch:
        sums = jax.vmap(one_slot, in_axes=(None, 0))(params, batch)
        # Every process reads all of it.
        return jax.tree.map(replicate, sums)

    return eval_step


def score_split(
    eval_step: Callable[[Any, Batch], Batch],
    params: Any,
    batches: Iterable[tuple[Batch, np.ndarray, np.ndarray]],
    num_examples: int,
) -> Scores:
    """Scores a split given as (device batch, example_SBM, scored_SBM) triples.

    Examples that are in none of the batches are not evaluated.
    """
    # Dispatch everything before reading anything back.
    pending = [
        (eval_step(params, batch), example_SBM, scored_SBM)
        for batch, example_SBM, scored_SBM in batches
    ]
    names = ("loss_sum", "count", "wrong", "scored")
    out = {name: np.zeros(num_examples, np.float32) for name in names}
    out["loss_sum"][:] = np.nan
    for sums, example_SBM, scored_SBM in pending:
        present_SBM = example_SBM >= 0
        index = example_SBM[present_SBM]
        for name, values_SBM in sums.items():
            out[name][index] = np.asarray(values_SBM)[present_SBM]
        out["scored"][index] = scored_SBM[present_SBM]
    return Scores(
        out["loss_sum"], out["count"], out["wrong"], out["scored"].astype(bool)
    )


def mean_loss(scores: Scores) -> tuple[float, float]:
    """Mean loss per response token in nats, and its standard error."""
    evaluated_N = scores.count_N > 0  # a loss that is nan all the same must be seen
    return ratio_of_sums(scores.loss_sum_N[evaluated_N], scores.count_N[evaluated_N])


def exact_match(scores: Scores) -> tuple[float, float]:
    """Share of single-reference examples reproduced exactly, and standard error."""
    right_N = (scores.wrong_N == 0)[scores.scored_N]
    return ratio_of_sums(right_N, np.ones(len(right_N)))


def paired_progress(before_sum_N: np.ndarray, scores: Scores) -> tuple[float, float]:
    """Decrease of the loss per token on the same examples, and standard error.

    Over the examples evaluated both times.
    """
    both_N = np.isfinite(before_sum_N) & (scores.count_N > 0)
    decrease_N = before_sum_N[both_N] - scores.loss_sum_N[both_N]
    return ratio_of_sums(decrease_N, scores.count_N[both_N])


def subset(scores: Scores, chosen_N: np.ndarray) -> Scores:
    """The scores of the examples where the bool `chosen_N` is True."""
    return Scores(
        **{
            field.name: getattr(scores, field.name)[chosen_N]
            for field in dataclasses.fields(Scores)
        }
    )


def loss_by_tier(
    scores: Scores, tier_N: np.ndarray, num_tiers: int
) -> tuple[np.ndarray, np.ndarray]:
    """`mean_loss` of the examples of each tier: two float64 [T], nan without any."""
    means = [mean_loss(subset(scores, tier_N == t)) for t in range(num_tiers)]
    loss_T, stderr_T = np.array(means).T
    return loss_T, stderr_T


def progress_by_tier(
    before_sum_N: np.ndarray, scores: Scores, tier_N: np.ndarray, num_tiers: int
) -> tuple[np.ndarray, np.ndarray]:
    """`paired_progress` of each tier: two float64 [T], nan without examples."""
    members = [tier_N == t for t in range(num_tiers)]
    progress = [paired_progress(before_sum_N[m], subset(scores, m)) for m in members]
    progress_T, stderr_T = np.array(progress).T
    return progress_T, stderr_T
