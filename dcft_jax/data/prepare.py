"""From a config to everything the trainer reads: tokenizer, packed rows, baselines."""

import hashlib
import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import Progress

from dcft_jax.data import chat, packing
from dcft_jax.data import tokenizer as tokenizer_module
from dcft_jax.data.chat import as_written
from dcft_jax.data.example import Example
from dcft_jax.data.packing import pack_examples
from dcft_jax.data.preflight import check_ability, check_tokenizer
from dcft_jax.data.rows import Rows, has_rows, hash_rows, load_rows, save_rows
from dcft_jax.data.splits import AbilityData, SplitReport, keep_apart, load_ability
from dcft_jax.data.streams import ability_seed
from dcft_jax.data.tokenizer import Tokenizer, cached_tokenizer, load_tokenizer

SPLITS = ("train", "mix_val", "test")
_MAKERS = (chat, packing, tokenizer_module)  # the code that turns examples into rows


@dataclass(frozen=True)
class Prepared:
    """What the data room hands to a run. Dicts are in the order of `config.abilities`.

    Attributes:
        tokenizer: given or trained.
        rows: ability -> split ("train", "mix_val", "test") -> rows.
        reports: ability -> what splitting counted and removed.
        majority_baseline: ability -> see `majority_baseline`.
        content_hash: of the tokenizer and of all rows.
    """

    tokenizer: Tokenizer
    rows: dict[str, dict[str, Rows]]
    reports: dict[str, SplitReport]
    majority_baseline: dict[str, float]
    content_hash: str


def prepare(config: ConfigDict, console: Console | None = None) -> Prepared:
    """Loads, splits, tokenises and packs all abilities, and refuses unfit data.

    Sources are read every time and rows are cached by the content of their examples,
    not by the config that names them: a changed file or source version can never meet
    old rows. Hashing takes a twentieth of the time of tokenising and packing.

    Args:
        config: reads `abilities`, `data` and `tokenizer`.
        console: where progress is shown; None shows nothing.

    Raises:
        ValueError, FileNotFoundError: see `load_ability`, `train_tokenizer`,
            `load_tokenizer` and `check_ability`.
    """
    if not config.abilities:
        raise ValueError("abilities: there is none; a run needs at least one")
    with Progress(
        console=console or Console(quiet=True), transient=True, disable=console is None
    ) as progress:
        names = list(config.abilities)
        loaded = {
            name: load_ability(name, config.abilities[name], config.data)
            for name in progress.track(names, description="reading sources")
        }
        loaded = keep_apart(loaded)
        progress.add_task("tokenizer", total=None)
        tokenizer = _tokenizer(config, loaded)
        work = progress.track(list(loaded.values()), description="packing rows")
        rows = {d.name: _ability_rows(d, tokenizer, config.data) for d in work}
    return Prepared(
        tokenizer=tokenizer,
        rows=rows,
        reports={name: data.report for name, data in loaded.items()},
        majority_baseline={
            name: majority_baseline(data.train, data.test, rows[name]["test"])
            for name, data in loaded.items()
        },
        content_hash=_content_hash(tokenizer, rows),
    )


def _content_hash(tokenizer: Tokenizer, rows: dict[str, dict[str, Rows]]) -> str:
    hashes = {
        ability: {split: hash_rows(r) for split, r in splits.items()}
        for ability, splits in rows.items()
    }
    content = repr((tokenizer.content_hash, hashes))
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _tokenizer(config: ConfigDict, loaded: Mapping[str, AbilityData]) -> Tokenizer:
    """The tokenizer of the config, or one trained on the train splits alone."""
    if config.tokenizer.path:
        tokenizer = load_tokenizer(config.tokenizer.path)
    else:
        texts = [text for data in loaded.values() for text in _texts(data.train)]
        size, cache_dir = config.tokenizer.vocab_size, config.data.cache_dir
        tokenizer = cached_tokenizer(texts, size, cache_dir)
    check_tokenizer(tokenizer)
    return tokenizer


def _texts(examples: Sequence[Example]) -> Iterator[str]:
    return (as_written(text) for example in examples for _, text in example.messages)


def _ability_rows(
    data: AbilityData, tokenizer: Tokenizer, config: ConfigDict
) -> dict[str, Rows]:
    """Rows of each split of one ability."""
    rows = {}
    for split in SPLITS:
        examples = getattr(data, split)
        order_N = _order(len(examples), split, ability_seed(config.seed, data.name))
        rows[split] = _cached_rows(examples, tokenizer, order_N, config)
    check_ability(data.name, rows, tokenizer, config.max_truncated_share)
    return rows


def _order(num_examples: int, split: str, seed: int) -> np.ndarray:
    """Train examples are shuffled, so that a row mixes sources; the others are not."""
    if split == "train":
        return np.random.default_rng(seed).permutation(num_examples)
    return np.arange(num_examples)


def _cached_rows(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    order_N: np.ndarray,
    config: ConfigDict,
) -> Rows:
    key = rows_key(examples, tokenizer, config.seq_len, order_N)
    folder = Path(config.cache_dir) / "rows" / key
    if not has_rows(folder):
        save_rows(pack_examples(examples, tokenizer, config.seq_len, order_N), folder)
    return load_rows(folder)


def rows_key(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    seq_len: int,
    order_N: np.ndarray,
) -> str:
    """Hash of all that decides what `pack_examples` returns, its own code included."""
    code = [inspect.getsource(module) for module in _MAKERS]
    head = (code, sentencepiece.__version__, tokenizer.content_hash, seq_len)
    key = hashlib.blake2b(repr(head).encode(), digest_size=16)
    key.update(np.asarray(order_N, np.int64).tobytes())
    for example in examples:
        key.update(repr((example.messages, example.single_reference)).encode())
    return key.hexdigest()


def majority_baseline(
    train: Sequence[Example], test: Sequence[Example], test_rows: Rows
) -> float:
    """Exact match of always giving the most frequent train reply of the same source.

    The chance level to read next to an accuracy: 0.5 for a source of yes-or-no
    questions. Over the scored examples of the test rows; nan if none is scored.
    """
    replies: dict[str, Counter] = {}
    for example in train:
        replies.setdefault(example.source, Counter())[example.reply] += 1
    majority = {source: c.most_common(1)[0][0] for source, c in replies.items()}
    scored = [test[i] for i in test_rows.example_NM[test_rows.scored_NM]]
    right = [example.reply == majority.get(example.source) for example in scored]
    return float(np.mean(right)) if right else float("nan")
