"""The documents that dcft-tiny is pretrained on, none of which a test split holds."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from dcft_jax.data import Example, load_ability, prompt_key
from dcft_jax.data.decontamination import find_contamination
from dcft_jax.data.example import normalise
from experiments.tiny_documents import is_plain, num_bytes, text_of
from experiments.tiny_sources import Source

# Words. Lower than for training data of one ability: nothing here shares the templates
# of a held-out text, so that whole short texts are worth looking for.
NGRAM = 4
HELD_OUT_SHARE = 0.01


@dataclass(frozen=True)
class Portion:
    """What one source gave.

    Attributes:
        train, held_out: documents; held-out ones measure the loss, nothing else.
        repeated, same_prompt, contaminated: documents that were removed, because an
            equal one is in the corpus, their prompt is held out by an ability, or
            they hold a held-out text whole (or are held by one).
    """

    source: Source
    train: list[Example]
    held_out: list[Example]
    repeated: int
    same_prompt: int
    contaminated: int

    @property
    def train_bytes(self) -> int:
        return sum(map(num_bytes, self.train))


def held_out_examples(config: ConfigDict) -> list[Example]:
    """The mix-val and test examples of every ability of a config."""
    examples = []
    for name, ability in config.abilities.items():
        data = load_ability(name, ability, config.data)
        examples += [*data.mix_val, *data.test]
    return examples


def build_corpus(
    sources: Iterable[Source], forbidden: Sequence[Example]
) -> list[Portion]:
    """Reads all sources; see `Portion` for what is taken out.

    Args:
        forbidden: what the corpus must not teach; see `held_out_examples`.
    """
    seen: set[str] = set()
    return [_portion(source, forbidden, seen) for source in sources]


def _portion(source: Source, forbidden: Sequence[Example], seen: set[str]) -> Portion:
    chosen = list(sample(source.read(), source.max_chars))
    distinct = list(_distinct(chosen, seen))
    answered, clean = decontaminate(distinct, forbidden)
    return Portion(
        source=source,
        train=[d for d in clean if not _is_held_out(d)],
        held_out=[d for d in clean if _is_held_out(d)],
        repeated=len(chosen) - len(distinct),
        same_prompt=len(distinct) - len(answered),
        contaminated=len(answered) - len(clean),
    )


def sample(documents: Iterable[Example], max_chars: int) -> Iterator[Example]:
    """Documents in the order of a hash, which is random, up to so many characters."""
    total = 0
    for document in sorted(documents, key=_lot):
        total += len(text_of(document))
        if total > max_chars:
            return
        yield document


def decontaminate(
    documents: Sequence[Example], forbidden: Sequence[Example]
) -> tuple[list[Example], list[Example]]:
    """Documents without a held-out prompt; of these, those without a held-out text.

    First, questions whose prompt is that of a held-out example go, whatever its length.
    Then every document goes that holds a held-out prompt or reply of `NGRAM` words or
    more as a whole, or is held by one; see `find_contamination`.
    """
    keys = {prompt_key(example) for example in forbidden}
    answered = [d for d in documents if is_plain(d) or prompt_key(d) not in keys]
    found = find_contamination(answered, forbidden, NGRAM)
    clean = [d for i, d in enumerate(answered) if i not in found.contained]
    return answered, clean


def _distinct(documents: Iterable[Example], seen: set[str]) -> Iterator[Example]:
    for document in documents:
        key = _digest(normalise(text_of(document))).hex()
        if key not in seen:
            seen.add(key)
            yield document


def _is_held_out(document: Example) -> bool:
    """By the unit: a gloss held out as an entry is not trained as a question."""
    digest = _digest(document.metadata["unit"])
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def _lot(document: Example) -> bytes:
    return _digest(text_of(document))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def cache_folder(config: ConfigDict) -> Path:
    return Path(config.data.cache_dir) / "tiny"
