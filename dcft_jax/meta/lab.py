"""What the worlds of a collection share: tokenizer, models, bases and examples."""

import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dcft_jax.data import Example, Rows, Tokenizer, encode_examples, pack_examples
from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.data.sentencepiece_tokenizer import cached_tokenizer
from dcft_jax.meta import families
from dcft_jax.meta.families import MAX_DRAWS
from dcft_jax.meta.measure import MIN_SUPPORT, pack_halves
from dcft_jax.meta.plan import make_bank, make_plan
from dcft_jax.meta.population import Population, make_population, train_population
from dcft_jax.meta.proxy import proxy_model
from dcft_jax.meta.published import PUBLISHED
from dcft_jax.meta.worlds import Settings, base_families
from dcft_jax.models import ModelConfig, init

BASE_EXAMPLES = 200  # of each family, for the tokenizer and the bases
cached_population = functools.lru_cache(make_population)


class Lab(NamedTuple):
    """What all worlds share."""

    settings: Settings
    folder: Path
    tokenizer: Tokenizer
    model: ModelConfig
    population: Population
    support: dict[str, tuple[Rows, Rows]]
    test: dict[str, Rows]


def make_lab(settings: Settings, folder: Path) -> Lab:
    """Draws and packs what describes and tests the tasks.

    Raises:
      ValueError: a family cannot fill its splits, or its examples do not fit.
    """
    texts = [
        text
        for task in settings.families
        for example in _base_examples(settings, task)
        for _, text in example.messages
    ]
    tokenizer = cached_tokenizer(texts, settings.vocab_size, folder)
    model = proxy_model(tokenizer.vocab_size, settings.width, settings.num_layers)
    support, test = {}, {}
    for task in settings.tasks:
        drawn = fitting(task, "support", settings.support, tokenizer, settings)
        support[task] = pack_halves(drawn, tokenizer, settings.seq_len)
        drawn = fitting(task, "test", settings.test, tokenizer, settings)
        test[task] = _pack(drawn, tokenizer, settings)
    population = cached_population(model, settings.training, settings.max_predicted)
    return Lab(settings, folder, tokenizer, model, population, support, test)


def fitting(
    task: str, split: str, count: int, tokenizer: Tokenizer, settings: Settings
) -> list[Example]:
    """Those of the examples that are no longer than a row.

    They are most of `count`. Of a published task `count` of a larger sample, or what
    there is.
    """
    is_published = task in PUBLISHED
    sample = MAX_DRAWS * count if is_published else count
    drawn = families.examples(task, split, sample, settings.seed, settings.directory)
    encoded = encode_examples(drawn, tokenizer)
    kept = [
        example
        for example, (tokens, _) in zip(drawn, encoded, strict=True)
        if len(tokens) <= settings.seq_len
    ]
    fewest = MIN_SUPPORT if is_published else count / 2
    if len(kept) < fewest:
        raise ValueError(
            f"task {task!r}: only {len(kept)} of {len(drawn)} examples fit into "
            f"seq_len={settings.seq_len}; raise it, or leave the task out"
        )
    return kept[:count]


def _base_examples(settings: Settings, task: str) -> list[Example]:
    """Not the train examples of the abilities, which are drawn with the seed itself."""
    return families.examples(task, "train", BASE_EXAMPLES, settings.seed + 1)


def _pack(
    examples: Sequence[Example], tokenizer: Tokenizer, settings: Settings
) -> Rows:
    rows = pack_examples(examples, tokenizer, settings.seq_len)
    if rows.max_response_tokens > settings.max_predicted:
        raise ValueError(
            f"max_predicted={settings.max_predicted}, but a row of "
            f"{examples[0].source!r} has {rows.max_response_tokens} response tokens; "
            "raise it"
        )
    return rows


def make_base(lab: Lab, number: int) -> Any:
    """Trained briefly on its families alike, once."""
    settings = lab.settings
    path = lab.folder / f"base-{number}.npz"
    drawn = init(lab.model, jax.random.key(settings.seed + number))
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            leaves = [file[str(i)] for i in range(len(file.files))]
        return jax.tree.unflatten(jax.tree.structure(drawn), leaves)
    training = settings.base_training(number)
    rows = [
        _pack(_base_examples(settings, task), lab.tokenizer, settings)
        for task in base_families(settings, number)
    ]
    weights_NK = np.full((1, len(rows)), 1 / len(rows))
    plan = make_plan(weights_NK, [number], rows, training)
    state_path = lab.folder / f"base-{number}-state.npz"
    trained = train_population(
        *(lab.population, drawn, make_bank(rows), plan, training, lambda _: {}),
        state_path=state_path,
        devices=jax.devices()[:1],
    )
    base = jax.tree.map(lambda x: np.asarray(x[0]), trained.params)
    buffer = io.BytesIO()
    np.savez(buffer, **{str(i): x for i, x in enumerate(jax.tree.leaves(base))})
    atomic_write(path, buffer.getvalue())
    state_path.unlink(missing_ok=True)  # another process may make the same base
    return base


def pack_ability(lab: Lab, names: Sequence[str], count: int) -> Rows:
    """The train rows of `ability_examples`."""
    return _pack(ability_examples(lab, names, count), lab.tokenizer, lab.settings)


def ability_examples(lab: Lab, names: Sequence[str], count: int) -> list[Example]:
    """Train examples, shared out evenly among the families."""
    return [
        example
        for number, name in enumerate(names)
        for example in fitting(
            name,
            "train",
            max((count + number) // len(names), 1),
            lab.tokenizer,
            lab.settings,
        )
    ]


def describe(lab: Lab, names: Sequence[str], split: str) -> list[Example]:
    """`settings.support` examples, as many of each family."""
    each = lab.settings.support // len(names)
    return [
        example
        for name in names
        for example in fitting(name, split, each, lab.tokenizer, lab.settings)
    ]
