"""From a config to everything the trainer reads: tokenizer, packed rows, baselines."""

import hashlib
import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
import numpy as np
import sentencepiece
import tokenizers
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import Progress

from dcft_jax.data import (
    chat,
    chat_template,
    hf_tokenizer,
    packing,
    role_symbols,
    sentencepiece_tokenizer,
    template_chat,
    template_probe,
    text_parts,
)
from dcft_jax.data.example import Example
from dcft_jax.data.example_losses import LossScorer
from dcft_jax.data.packing import pack_examples
from dcft_jax.data.preflight import check_ability, check_tokenizer
from dcft_jax.data.pretrained_tokenizer import load_chat_tokenizer
from dcft_jax.data.role_symbols import as_written
from dcft_jax.data.rows import Rows, has_rows, hash_rows, load_rows, save_rows
from dcft_jax.data.sentencepiece_tokenizer import cached_tokenizer
from dcft_jax.data.splits import AbilityData, SplitReport, keep_apart, load_ability
from dcft_jax.data.streams import ability_seed
from dcft_jax.data.tiers import TierPlan, Tiers, difficulty_measure, plan_tiers
from dcft_jax.data.tokenizer import Tokenizer

# What turns examples into rows: our code, and the libraries it calls.
_MAKERS = (
    chat,
    chat_template,
    hf_tokenizer,
    packing,
    role_symbols,
    sentencepiece_tokenizer,
    template_chat,
    template_probe,
    text_parts,
)
_LIBRARIES = (sentencepiece, tokenizers, jinja2)


@dataclass(frozen=True)
class Prepared:
    """What the data room hands to a run. Dicts are in the order of `config.abilities`.

    Attributes:
        tokenizer: given or trained.
        rows: ability -> split ("train", "mix_val", "test") -> rows. An ability with
            several tiers has no "train" here.
        tiers: ability -> train rows by tier; for an ability with one tier these are
            those of `rows`.
        held_out: ability -> "mix_val" and "test" -> the examples of those rows.
        reports: ability -> what splitting counted and removed.
        majority_baseline: ability -> see `majority_baseline`.
        content_hash: of the tokenizer and of all rows.
    """

    tokenizer: Tokenizer
    rows: dict[str, dict[str, Rows]]
    tiers: dict[str, Tiers]
    held_out: dict[str, dict[str, Sequence[Example]]]
    reports: dict[str, SplitReport]
    majority_baseline: dict[str, float]
    content_hash: str

    @property
    def max_predicted(self) -> int:
        """Response tokens of a row, at most, in whole eights."""
        held_out = [r for splits in self.rows.values() for r in splits.values()]
        train = [r for tiers in self.tiers.values() for r in tiers.train]
        most = max(rows.max_response_tokens for rows in (*held_out, *train))
        return -(-most // 8) * 8


def prepare(
    config: ConfigDict,
    console: Console | None = None,
    scorer: LossScorer | None = None,
    tokenizer: Tokenizer | None = None,
) -> Prepared:
    """Loads, splits, tokenises and packs all abilities, and refuses unfit data.

    Sources are read every time and rows are cached by the content of their examples,
    not by the config that names them: a changed file or source version can never meet
    old rows. Hashing takes a twentieth of the time of tokenising and packing.

    Args:
        config: reads `abilities`, `data` and `tokenizer`.
        console: where progress is shown; None shows nothing.
        scorer: the model whose loss makes tiers, for abilities with `tiers.by="loss"`.
        tokenizer: instead of the one that `config.tokenizer` describes.

    Raises:
        ValueError, FileNotFoundError: see `load_ability`, `train_tokenizer`,
            `load_chat_tokenizer`, `difficulty_measure` and `check_ability`.
    """
    if not config.abilities:
        raise ValueError("abilities: there is none; a run needs at least one")
    tokenizer = tokenizer or _given_tokenizer(config.tokenizer)
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
        tokenizer = tokenizer or _trained_tokenizer(config, loaded)
        work = progress.track(list(loaded.values()), description="packing rows")
        rows, tiers, reports = {}, {}, {}
        for data in work:
            wanted = config.abilities[data.name].tiers
            plan = _plan(data, wanted, tokenizer, scorer, config.data.cache_dir)
            rows[data.name], tiers[data.name] = _ability_rows(
                data, plan, tokenizer, config.data
            )
            reports[data.name] = replace(
                data.report,
                tiers_by=wanted.by,
                tiers_asked=wanted.count,
                tiers=tiers[data.name].sizes(),
            )
    return Prepared(
        tokenizer=tokenizer,
        rows=rows,
        tiers=tiers,
        held_out={
            name: {"mix_val": data.mix_val, "test": data.test}
            for name, data in loaded.items()
        },
        reports=reports,
        majority_baseline={
            name: majority_baseline(data.train, data.test, rows[name]["test"])
            for name, data in loaded.items()
        },
        content_hash=_content_hash(tokenizer, rows, tiers),
    )


def _content_hash(
    tokenizer: Tokenizer,
    rows: Mapping[str, Mapping[str, Rows]],
    tiers: Mapping[str, Tiers],
) -> str:
    hashes = {
        ability: {split: hash_rows(r) for split, r in splits.items()}
        for ability, splits in rows.items()
    }
    for ability, split in tiers.items():
        if len(split) > 1:
            named = _named(split.train)
            hashes[ability] |= {name: hash_rows(rows) for name, rows in named.items()}
            hashes[ability]["mix_val tiers"] = split.plan.mix_val_tier_N.tobytes().hex()
    content = repr((tokenizer.content_hash, hashes))
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _given_tokenizer(config: ConfigDict) -> Tokenizer | None:
    """`config`: `config.tokenizer`. Read before the sources: it is refused at once."""
    if not config.path:
        return None
    tokenizer = load_chat_tokenizer(
        config.path, config.chat_template, config.fold_system
    )
    check_tokenizer(tokenizer)
    return tokenizer


def _trained_tokenizer(
    config: ConfigDict, loaded: Mapping[str, AbilityData]
) -> Tokenizer:
    """Trained on the train splits alone."""
    texts = [text for data in loaded.values() for text in _texts(data.train)]
    size, cache_dir = config.tokenizer.vocab_size, config.data.cache_dir
    return cached_tokenizer(texts, size, cache_dir)


def _texts(examples: Sequence[Example]) -> Iterator[str]:
    return (as_written(text) for example in examples for _, text in example.messages)


def _plan(
    data: AbilityData,
    wanted: ConfigDict,
    tokenizer: Tokenizer,
    scorer: LossScorer | None,
    cache_dir: str,
) -> TierPlan:
    """`wanted`: `config.abilities.<name>.tiers`."""
    measure = difficulty_measure(data.name, wanted.by, tokenizer, scorer, cache_dir)
    return plan_tiers(measure(data.train), measure(data.mix_val), wanted.count)


def _ability_rows(
    data: AbilityData, plan: TierPlan, tokenizer: Tokenizer, config: ConfigDict
) -> tuple[dict[str, Rows], Tiers]:
    """Rows of each split and each tier of one ability."""
    seed = ability_seed(config.seed, data.name)
    # Shuffled, so that a row mixes sources.
    order_N = np.random.default_rng(seed).permutation(len(data.train))
    train = tuple(
        _cached_rows(
            data.train, tokenizer, order_N[plan.train_tier_N[order_N] == tier], config
        )
        for tier in range(len(plan))
    )
    held_out = {
        split: _cached_rows(examples, tokenizer, np.arange(len(examples)), config)
        for split, examples in (("mix_val", data.mix_val), ("test", data.test))
    }
    checked = {**_named(train), **held_out}
    check_ability(data.name, checked, tokenizer, config.max_truncated_share)
    rows = checked if len(train) == 1 else held_out
    return rows, Tiers(plan, train)


def _named(train: Sequence[Rows]) -> dict[str, Rows]:
    """The rows of each tier by a name for messages."""
    if len(train) == 1:
        return {"train": train[0]}
    return {f"train, tier {t}": rows for t, rows in enumerate(train)}


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
    versions = [library.__version__ for library in _LIBRARIES]
    hashes = (tokenizer.content_hash, tokenizer.chat.content_hash)
    head = (code, versions, hashes, tokenizer.pad_id, seq_len)
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
