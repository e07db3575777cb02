"""The train examples of an ability by difficulty."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dcft_jax.data.difficulty import assign, cut_points, levels, response_lengths
from dcft_jax.data.example import Example
from dcft_jax.data.example_losses import LossScorer, example_losses
from dcft_jax.data.rows import Rows
from dcft_jax.data.split_report import TierSize
from dcft_jax.data.tokenizer import Tokenizer

KINDS = ("none", "level", "length", "loss")


@dataclass(frozen=True, eq=False)
class TierPlan:
    """Which example is in which tier; T tiers, 0 the easiest.

    Attributes:
        cuts: the lowest difficulty of every tier but the first.
        train_tier_N: int8; every tier from 0 to T - 1 occurs.
        mix_val_tier_N: int8, by the same cuts, so that the loss of a tier can be read
            off the losses of mix-val examples; a tier may have none.
        ranges: (lowest, highest) difficulty in each tier of train.
    """

    cuts: np.ndarray
    train_tier_N: np.ndarray
    mix_val_tier_N: np.ndarray
    ranges: tuple[tuple[float, float], ...]

    def __len__(self) -> int:
        return len(self.ranges)


@dataclass(frozen=True, eq=False)
class Tiers:
    """An ability's train rows by tier, easiest first. Examples are those of `plan`."""

    plan: TierPlan
    train: tuple[Rows, ...]

    def __len__(self) -> int:
        return len(self.train)

    def sizes(self) -> tuple[TierSize, ...]:
        """Of each tier, for the report; none for an ability with one tier."""
        if len(self) == 1:
            return ()
        held_out_T = np.bincount(self.plan.mix_val_tier_N, minlength=len(self))
        return tuple(
            TierSize(
                lowest=low,
                highest=high,
                examples=rows.num_examples,
                mix_val=int(held_out),
                rows=len(rows),
                response_tokens=rows.num_response_tokens,
                mean_length=rows.num_tokens / rows.num_examples,
            )
            for (low, high), rows, held_out in zip(
                self.plan.ranges, self.train, held_out_T, strict=True
            )
        )


def plan_tiers(
    train_difficulty_N: np.ndarray, mix_val_difficulty_N: np.ndarray, count: int
) -> TierPlan:
    """Cuts the train examples into at most `count` tiers; see `cut_points`."""
    cuts = cut_points(train_difficulty_N, count)
    train_tier_N = assign(train_difficulty_N, cuts)
    members = [train_difficulty_N[train_tier_N == t] for t in range(len(cuts) + 1)]
    return TierPlan(
        cuts=cuts,
        train_tier_N=train_tier_N,
        mix_val_tier_N=assign(mix_val_difficulty_N, cuts),
        ranges=tuple((float(m.min()), float(m.max())) for m in members),
    )


def difficulty_measure(
    ability: str,
    by: str,
    tokenizer: Tokenizer,
    scorer: LossScorer | None,
    cache_dir: str | os.PathLike,
) -> Callable[[Sequence[Example]], np.ndarray]:
    """How hard examples are: `examples -> difficulty_N`.

    Args:
        ability: its name, for messages.
        by: "level", the source's own; "length", response tokens; "loss", that of a
            model; "none", all the same.
        tokenizer: of the run.
        scorer: for "loss".
        cache_dir: where losses are kept.

    Raises:
        ValueError: another `by`, or "loss" without a scorer.
    """
    if by == "none":
        return lambda examples: np.zeros(len(examples))
    if by == "level":
        return lambda examples: levels(ability, examples)
    if by == "length":
        return lambda examples: response_lengths(examples, tokenizer)
    if by != "loss":
        raise ValueError(f"abilities.{ability}.tiers.by={by!r} is not one of {KINDS}")
    if scorer is None:
        raise ValueError(
            f"abilities.{ability}.tiers.by='loss' needs a model whose loss on each "
            "example is known before training; there is none here"
        )
    return lambda examples: example_losses(scorer, examples, tokenizer, cache_dir)
