"""Named collections of test items."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from dcft_jax.data.fetch.store import CACHE, is_whole, read_manifest
from dcft_jax.data.fetch.suites import FETCHED
from dcft_jax.evaluation.emerging import FAMILIES, emerging_items
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
        directory: for a suite that is fetched, what `python -m dcft_jax.data.fetch`
            was given as `--to`; None is its default.
        limit: at most so many items of every task, drawn at random. The draw depends on
            the seed and the items alone, so all models answer the same; that of a
            larger limit contains it.
        seed: of that draw.

    Raises:
        FileNotFoundError: the suite was not fetched; the message says how to.
        ImportError: the suite needs a package; the message says which.
        ValueError: an unknown suite, a limit below 1, a directory for a suite that is
            not read from one, or a damaged file.
    """
    if name not in SUITES:
        raise ValueError(f"suite {name!r}: there are {', '.join(SUITES)}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} must be at least 1, or None for all items")
    suite = SUITES[name](None if directory is None else Path(directory))
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


def fetched(
    suite: str, directory: Path | None, task: str | None = None
) -> dict[str, list[Item]]:
    """What `python -m dcft_jax.data.fetch` has written into the directory.

    Args:
        suite: of `dcft_jax.data.fetch.suites`.
        directory: see `load_suite`.
        task: read this one only; None: all that are there.

    Raises:
        FileNotFoundError, ValueError: see `load_suite`.
    """
    folder = (directory or Path(CACHE)) / suite
    manifest = read_manifest(folder)
    tasks = [*manifest] if task is None else [task]
    if not manifest or tasks[0] not in manifest:
        what = f"the suite {suite!r}" if task is None else f"the task {task!r}"
        command = _command(suite, directory, [*manifest, *tasks] if manifest else [])
        raise FileNotFoundError(f"{what} is not in {folder}; `{command}` fetches it")
    found = {}
    for name in tasks:
        path = folder / f"{name}.jsonl"
        if not is_whole(folder, manifest[name]):
            command = _command(suite, directory, [*manifest])
            raise ValueError(f"{path} is not what was fetched; `{command}` mends it")
        found[name] = load_items(path)
    return found


def _command(suite: str, directory: Path | None, there: Sequence[str]) -> str:
    """What fetches the tasks that are there, or all if none is."""
    words = [f"python -m dcft_jax.data.fetch {suite}"]
    if directory is not None:
        words += ["--to", str(directory)]
    left_out = [task.name for task in FETCHED[suite] if task.name not in there]
    if there and left_out:
        words += ["--without", *left_out]
    return " ".join(words)


def emerging(directory: Path | None) -> dict[str, list[Item]]:
    """The test items of every family in `dcft_jax.evaluation.emerging`."""
    if directory is not None:
        raise ValueError(
            f"directory={str(directory)!r}: the suite 'emerging' is generated; "
            "leave the directory out"
        )
    return {family: emerging_items(family) for family in FAMILIES}


SUITES: dict[str, Callable[[Path | None], dict[str, list[Item]]]] = {
    **{name: partial(fetched, name) for name in FETCHED},
    "emerging": emerging,
}
