"""Examples drawn from a generator: disjoint seed ranges and distinct prompts."""

from collections.abc import Callable

from dcft_jax.data.example import Example, SourceData, prompt_key

SPLITS = ("train", "mix_val", "test")

# Indices that belong to one (seed, split). Generators such as Reasoning Gym seed item
# `i` with `seed + i`, so splits with neighbouring seeds would share nearly all items.
BLOCK = 2**24

# Data seeds from here on are nobody's: their ranges are for test items that no training
# source can draw (dcft_jax.evaluation.emerging).
RESERVED_SEED = 2**31

# Draws per wanted example before a generator counts as exhausted.
MAX_DRAWS = 20


def first_index(seed: int, split: str) -> int:
    """Where the range of BLOCK indices of a split begins; ranges never overlap."""
    if seed < 0:
        raise ValueError(f"data.seed must not be negative, got {seed}")
    if seed >= RESERVED_SEED:
        raise ValueError(
            f"data.seed={seed} must be below {RESERVED_SEED}: what larger ones would "
            "draw is reserved for evaluation"
        )
    return (seed * len(SPLITS) + SPLITS.index(split)) * BLOCK


def reserved_index(seed: int) -> int:
    """Where a range of BLOCK indices begins that no `first_index` reaches."""
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    return (RESERVED_SEED * len(SPLITS) + seed) * BLOCK


def draw_unique(
    make: Callable[[int], Example], count: int, name: str, max_chars: int = 0
) -> list[Example]:
    """make(0), make(1), ... until `count` examples with distinct prompts are found.

    Examples of more than `max_chars` characters are passed over; 0 is no limit.

    Raises:
        ValueError: if MAX_DRAWS * count draws do not hold `count` distinct prompts.
    """
    found: dict[bytes, Example] = {}
    for index in range(MAX_DRAWS * count):
        if len(found) == count:
            break
        example = make(index)
        if not max_chars or _length(example) <= max_chars:
            found.setdefault(prompt_key(example), example)
    if len(found) < count:
        raise ValueError(
            f"{name}: asked for {count} examples, but {MAX_DRAWS * count} draws gave "
            f"only {len(found)} distinct prompts of allowed length. Ask for fewer "
            "(examples, mix_val, test) or widen the parameters of the source."
        )
    return list(found.values())


def _length(example: Example) -> int:
    return sum(len(text) for _, text in example.messages)


def draw_splits(
    make_split: Callable[[int, int], Callable[[int], Example]],
    *,
    examples: int,
    held_out: int,
    seed: int,
    name: str,
    max_chars: int = 0,
) -> SourceData:
    """Train, mix-val and test examples from index ranges that do not overlap.

    Prompts are distinct inside a split. Two splits can still draw the same prompt; the
    caller removes those by `prompt_key`.

    Args:
        make_split: first index of a split, most draws from it -> (offset -> example).
        examples: size of the train split.
        held_out: size of each of mix-val and test.
        seed: data seed.
        name: for error messages.
        max_chars: longest example to keep, prompt and reply together; 0 for any.

    Raises:
        ValueError: if a size is not positive or the generator is exhausted.
    """
    if examples < 1:
        raise ValueError(f"{name}: `examples` must be at least 1, got {examples}")
    sizes = {"train": examples, "mix_val": held_out, "test": held_out}
    return SourceData(
        {
            split: draw_unique(
                make_split(first_index(seed, split), MAX_DRAWS * size),
                size,
                name,
                max_chars,
            )
            for split, size in sizes.items()
        }
    )
