"""How much data there is, if it is here; else what a program can assume."""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax.data import prepare
from dcft_jax.training.run import tier_sizes

# Without the data: examples that share a row of evaluation. Hardly any of the memory
# or the time depends on it.
EXAMPLES_PER_ROW = 16


class Sizes(NamedTuple):
    """T tiers at most of each of K abilities."""

    size_KT: np.ndarray  # train rows; ones if unknown
    tier_KN: np.ndarray
    max_predicted: int | None  # response tokens of a row; None: any number
    examples_per_row: int  # of held-out rows, at most
    vocab_size: int | None  # of the tokenizer
    unknown: str  # why nothing is known; "": all is


def measure_sizes(config: ConfigDict, console: Console) -> Sizes:
    """Sizes of the prepared data, which is read as a run would read it."""
    if config.pretrained.path and not config.tokenizer.path:
        return assumed_sizes(
            config,
            "the tokenizer lies beside the weights, which planning does not read",
        )
    try:
        data = prepare(config, console=console)
    except (ValueError, OSError, ImportError) as error:
        return assumed_sizes(config, str(error).strip().splitlines()[0])
    size_KT, tier_KN = tier_sizes(data)
    held_out = [r for splits in data.rows.values() for r in splits.values()]
    return Sizes(
        size_KT,
        tier_KN,
        data.max_predicted,
        max(rows.scored_NM.shape[1] for rows in held_out),
        data.tokenizer.vocab_size,
        "",
    )


def assumed_sizes(config: ConfigDict, reason: str) -> Sizes:
    """As many tiers as the config asks for, of unknown size."""
    abilities = config.abilities.values()
    counts = [a.tiers.count if a.tiers.by != "none" else 1 for a in abilities]
    size_KT = np.array([[t < n for t in range(max(counts))] for n in counts], np.int64)
    num_examples = max(ability.mix_val for ability in abilities)
    tier_KN = np.zeros((len(counts), num_examples), np.int8)
    return Sizes(size_KT, tier_KN, None, EXAMPLES_PER_ROW, None, reason)
