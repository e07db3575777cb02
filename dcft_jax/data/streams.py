"""One endless stream of training rows per ability, or per difficulty tier of it.

A stream is a pure function of (seed, index). Whoever reads it keeps the index, so that
resuming needs one integer per stream, and neither the number of processes nor the
history of the mixture can change which row comes next.
"""

import hashlib
from collections.abc import Sequence

import grain

from dcft_jax.data.rows import Rows


def ability_seed(seed: int, ability: str) -> int:
    """A 32-bit seed of its own for each ability.

    Hashed, because grain shuffles epoch e with seed + e: neighbouring seeds would
    share their permutations, one epoch apart.
    """
    digest = hashlib.blake2b(f"{seed}/{ability}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def tier_streams(
    train: Sequence[Rows], seed: int, ability: str
) -> list[grain.MapDataset]:
    """A stream for each tier of an ability, with seeds of their own.

    That of an ability with one tier is the same as if there were no tiers.

    Args:
        train: rows of each tier.
        seed: `config.data.seed + config.run.seed`.
        ability: its name.
    """
    if len(train) == 1:
        return [make_stream(train[0], ability_seed(seed, ability))]
    # No ability has a "/" in its name.
    return [
        make_stream(rows, ability_seed(seed, f"{ability}/{tier}"))
        for tier, rows in enumerate(train)
    ]


def make_stream(rows: Rows, seed: int) -> grain.MapDataset:
    """The rows in a new order every epoch, without end.

    Item i is row `permutation[i // N](i % N)` as a dict of arrays of length L, keyed
    by `ROW_FIELDS`. Access is random: an item costs the same wherever it is, about
    0.1 ms. (Under 100 rows the index permutation of grain takes longer, up to
    10 ms an item for 2 rows.)

    Args:
        rows: train rows of one ability or tier.
        seed: from `ability_seed`.

    Raises:
        ValueError: there is no row.
    """
    if not len(rows):
        raise ValueError("a stream needs at least one train row")
    return grain.MapDataset.source(rows).seed(seed).shuffle().repeat()
