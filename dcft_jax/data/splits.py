"""Train, mix-val and test examples of an ability, disjoint by construction."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ml_collections import ConfigDict

from dcft_jax.data.decontamination import find_contamination
from dcft_jax.data.example import Example, SourceData, prompt_key
from dcft_jax.data.sources import open_source
from dcft_jax.data.split_report import SplitReport, count_by_source
from dcft_jax.data.time_limit import within

HELD_OUT = ("test", "mix_val")

# A prompt stays in the first pool that has it. "all" is still to be split; explicit
# train rows come last, so that they cannot repeat what is split off from "all".
_PRECEDENCE = ("test", "mix_val", "all", "train")

# pool -> source -> rank -> example. The rank is a keyed hash of the prompt: at once
# its identity and its lot.
Pools = dict[str, dict[str, dict[bytes, Example]]]


@dataclass(frozen=True)
class AbilityData:
    """Examples of one ability, in three sets that share no prompt.

    Held-out sets are in random order, so any prefix of one is a fair sample of it.
    """

    name: str
    train: Sequence[Example]
    mix_val: Sequence[Example]
    test: Sequence[Example]
    report: SplitReport


def load_ability(name: str, ability: ConfigDict, data: ConfigDict) -> AbilityData:
    """Opens all sources of an ability and splits them.

    Finite sources are split by a hash of the normalised prompt, keyed with the seed:
    uniform whatever the prompt says, so answers are distributed alike in all splits,
    and independent of the order of the rows, the process and the machine. The held-out
    sets have exactly the sizes asked for, shared among sources in proportion to their
    size. Prompts are distinct; a held-out one is removed from train, and from mix-val
    if it is in test.

    Args:
        name: of the ability.
        ability: `configs.base.ability(...)`.
        data: the `data` group of the config; reads `seed`, `on_bad_row` and
            `decontamination_ngram`.

    Raises:
        ValueError: no source, an empty or a malformed one, an unknown field or kind,
            sizes below 1 or beyond the data, or nothing left to train on.
        FileNotFoundError: a file of a source is missing.
        TimeoutError: a source takes longer than `source_timeout_s`.
        ImportError: a package that a source needs is missing.
    """
    _check_request(name, ability, data)
    sources = _open_sources(name, ability, data)
    pools, removed = _assign_pools(sources, data.seed)
    splits = _split(name, ability, pools)
    unused = [row for split in HELD_OUT for row in _rows(pools, split)]
    held_out = [*splits["test"], *splits["mix_val"], *unused]
    found = find_contamination(splits["train"], held_out, data.decontamination_ngram)
    splits["train"] = [
        row for i, row in enumerate(splits["train"]) if i not in found.contained
    ]
    _check_train(name, ability, splits["train"])
    report = SplitReport(
        ability=name,
        counts=count_by_source(splits, list(sources)),
        removed=dict(removed),
        unused=len(unused),
        skipped={source: opened.skipped for source, opened in sources.items()},
        ngram=data.decontamination_ngram,
        ngram_shared=found.shared,
        ngram_removed=len(found.contained),
    )
    return AbilityData(name, **splits, report=report)


def keep_apart(loaded: Mapping[str, AbilityData]) -> dict[str, AbilityData]:
    """Removes from the train set of each ability what any other one holds out.

    Abilities share a model, so a test prompt of one must not be trained under the
    name of another either. The report counts them as "train/other abilities".

    Raises:
        ValueError: an ability has nothing left to train on.
    """
    held_out = {
        name: {prompt_key(row) for split in HELD_OUT for row in getattr(data, split)}
        for name, data in loaded.items()
    }
    apart = {}
    for name, data in loaded.items():
        foreign = set().union(*(k for other, k in held_out.items() if other != name))
        train = [row for row in data.train if prompt_key(row) not in foreign]
        if not train:
            raise ValueError(
                f"abilities.{name}: every train prompt is held out by another ability; "
                "give them different sources"
            )
        apart[name] = _without_foreign(data, train)
    return apart


def _without_foreign(data: AbilityData, train: Sequence[Example]) -> AbilityData:
    dropped = len(data.train) - len(train)
    if not dropped:
        return data
    splits = {"train": train, "mix_val": data.mix_val, "test": data.test}
    report = replace(
        data.report,
        counts=count_by_source(splits, list(data.report.counts)),
        removed={**data.report.removed, "train/other abilities": dropped},
    )
    return replace(data, train=train, report=report)


def _check_request(name: str, ability: ConfigDict, data: ConfigDict) -> None:
    if not ability.sources:
        raise ValueError(
            f"ability {name} has no source; add one to abilities.{name}.sources"
        )
    for split in HELD_OUT:
        if ability[split] < 1:
            raise ValueError(
                f"abilities.{name}.{split}={ability[split]} must be at least 1"
            )
    if data.on_bad_row not in ("fail", "skip"):
        raise ValueError(f"data.on_bad_row={data.on_bad_row!r} is not 'fail' or 'skip'")


def _check_train(name: str, ability: ConfigDict, train: Sequence[Example]) -> None:
    if not train:
        raise ValueError(
            f"ability {name}: nothing is left to train on after holding out "
            f"mix_val={ability.mix_val} and test={ability.test}; add data or lower "
            f"abilities.{name}.mix_val and abilities.{name}.test"
        )


def _open_sources(
    name: str, ability: ConfigDict, data: ConfigDict
) -> dict[str, SourceData]:
    """Sources by name, sorted: the order of a config's fields must not matter."""
    sources = {}
    for source in sorted(ability.sources):
        field = f"abilities.{name}.sources.{source}"
        try:
            sources[source] = within(
                data.source_timeout_s,
                partial(
                    open_source,
                    ability.sources[source],
                    # Enough even if mix-val repeats many prompts of test.
                    held_out=ability.mix_val + ability.test,
                    seed=data.seed,
                    on_bad_row=data.on_bad_row,
                ),
            )
        except TimeoutError as error:
            raise TimeoutError(
                f"{field}: {error}; does its storage answer? If it only needs more "
                "time, raise data.source_timeout_s"
            ) from error
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{field}: {error}") from error
        except ImportError as error:
            raise ImportError(f"{field}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{field}: {error}") from error
        if not any(map(len, sources[source].splits.values())):
            raise ValueError(f"{field} has no examples")
    return sources


def _rank(example: Example, seed: int) -> bytes:
    key = seed.to_bytes(8, "little", signed=True)
    return hashlib.blake2b(prompt_key(example), digest_size=16, key=key).digest()


def _assign_pools(
    sources: Mapping[str, SourceData], seed: int
) -> tuple[Pools, Counter[str]]:
    """Every prompt once, in the first pool that has it, and what that removed."""
    pools: Pools = {pool: {source: {} for source in sources} for pool in _PRECEDENCE}
    holder: dict[bytes, str] = {}  # rank -> split
    removed: Counter[str] = Counter()
    for pool in _PRECEDENCE:
        split = "train" if pool == "all" else pool
        for source, opened in sources.items():
            for example in opened.splits.get(pool, ()):
                rank = _rank(example, seed)
                if rank not in holder:
                    holder[rank] = split
                    pools[pool][source][rank] = replace(example, source=source)
                elif holder[rank] == split:
                    removed["duplicates"] += 1
                else:
                    removed[f"{split}/{holder[rank]}"] += 1
    return pools, removed


def _split(name: str, ability: ConfigDict, pools: Pools) -> dict[str, list[Example]]:
    """Draws the held-out sets out of the pools; the rest of the others is train."""
    sizes = {
        source: len(pools["all"][source]) + len(pools["train"][source])
        for source in pools["all"]
    }
    drawn = {}
    for split in HELD_OUT:
        # A source that brings its own held-out rows is not split for more of them.
        origin = {s: pools[split][s] or pools["all"][s] for s in sizes}
        limits = {source: len(examples) for source, examples in origin.items()}
        if sum(limits.values()) < ability[split]:
            raise ValueError(
                f"ability {name}: {split}={ability[split]} but only "
                f"{sum(limits.values())} examples are left to hold out; add data or "
                f"lower abilities.{name}.{split}"
            )
        shares = apportion(ability[split], sizes, limits)
        lots = [
            (rank, origin[source])
            for source, share in shares.items()
            for rank in heapq.nsmallest(share, origin[source])
        ]
        lots.sort(key=lambda lot: lot[0])
        drawn[split] = [examples.pop(rank) for rank, examples in lots]
    return {"train": [*_rows(pools, "all"), *_rows(pools, "train")], **drawn}


def _rows(pools: Pools, pool: str) -> list[Example]:
    return [row for examples in pools[pool].values() for row in examples.values()]


def apportion(
    total: int, sizes: Mapping[str, int], limits: Mapping[str, int]
) -> dict[str, int]:
    """Integer shares of `total` in proportion to sizes, none beyond its limit.

    The divisor method of Sainte-Lague, seat by seat; ties go to the first name.
    `limits` must add up to `total` or more.
    """
    shares = dict.fromkeys(sizes, 0)
    for _ in range(total):
        open_names = [name for name in sizes if shares[name] < limits[name]]
        winner = max(open_names, key=lambda name: sizes[name] / (2 * shares[name] + 1))
        shares[winner] += 1
    return shares
