"""Named collections of test items."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from dcft_jax.data.fetch.store import CACHE, is_whole, read_manifest
from dcft_jax.evaluation.items import Item, load_items


def load_suite(
    name: str,
    directory: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> dict[str, list[Item]]:
    """The items of a suite by task.

    Args:
        name: of `SUITES`.
        directory: what `python -m dcft_jax.data.fetch` was given as `--to`; None is
            its default.
        limit: at most so many items of every task, drawn at random. The draw depends on
            the seed and the items alone, so all models answer the same; that of a
            larger limit contains it.
        seed: of that draw.

    Raises:
        FileNotFoundError: the suite was not fetched; the message says how to.
        ValueError: an unknown suite, a limit below 1, or a damaged file.
    """
    if name not in SUITES:
        raise ValueError(f"suite {name!r}: there are {', '.join(SUITES)}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} must be at least 1, or None for all items")
    suite = SUITES[name](Path(CACHE if directory is None else directory))
    if limit is None:
        return suite
    return {task: draw(items, limit, seed) for task, items in suite.items()}


def draw(items: Sequence[Item], limit: int, seed: int) -> list[Item]:
    """At most `limit` items, drawn at random by their ids, in their own order."""
    lowest = sorted(items, key=lambda item: _rank(item.id, seed))[:limit]
    chosen = {item.id for item in lowest}
    return [item for item in items if item.id in chosen]


def _rank(identity: str, seed: int) -> bytes:
    """Not of a generator, whose draws may change with the version of its library."""
    return hashlib.blake2b(f"{seed}/{identity}".encode(), digest_size=16).digest()


def offline(directory: Path) -> dict[str, list[Item]]:
    """What `python -m dcft_jax.data.fetch offline` has written into the directory."""
    folder = directory / "offline"
    command = "python -m dcft_jax.data.fetch offline"
    if str(directory) != CACHE:
        command += f" --to {directory}"
    manifest = read_manifest(folder)
    if not manifest:
        raise FileNotFoundError(
            f"the suite 'offline' is not in {folder}; `{command}` fetches it"
        )
    suite = {}
    for task, entry in manifest.items():
        path = folder / f"{task}.jsonl"
        if not is_whole(folder, entry):
            raise ValueError(f"{path} is not what was fetched; `{command}` mends it")
        suite[task] = load_items(path)
    return suite


SUITES: dict[str, Callable[[Path], dict[str, list[Item]]]] = {"offline": offline}
