"""From documents to rows of tokens, and the folder that keeps them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dcft_jax.data import Example, load_tokenizer, train_tokenizer
from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.data.role_symbols import as_written
from dcft_jax.data.sentencepiece_tokenizer import SentencePieceTokenizer
from experiments.tiny_corpus import Portion
from experiments.tiny_documents import encode, num_bytes

_REPORT, _TRAIN, _TOKENIZER = "corpus.json", "train.npy", "tokenizer.model"


@dataclass(frozen=True)
class SourceReport:
    """One line of the table of sources. Bytes are those of the text in UTF-8."""

    name: str
    licence: str
    origin: str
    documents: int
    train_bytes: int
    train_tokens: int
    held_out_bytes: int  # of the documents whose loss is measured
    repeated: int
    same_prompt: int
    contaminated: int


@dataclass(frozen=True)
class Corpus:
    """Rows of L + 1 tokens that overlap by one: each predicts its last L tokens."""

    tokenizer: SentencePieceTokenizer
    train_NL: np.ndarray
    held_out: dict[str, np.ndarray]  # source -> rows
    reports: list[SourceReport]


def train_corpus_tokenizer(
    portions: Sequence[Portion], vocab_size: int, max_chars: int, path: Path
) -> SentencePieceTokenizer:
    """SentencePiece on a fair sample of the train documents."""
    total = sum(portion.train_bytes for portion in portions)
    keep = min(1.0, max_chars / total)
    rng = np.random.default_rng(0)
    texts = [
        as_written(text)
        for portion in portions
        for document in portion.train
        if rng.random() < keep
        for _, text in document.messages
    ]
    return train_tokenizer(texts, vocab_size, path)


def write_corpus(
    portions: Sequence[Portion],
    tokenizer: SentencePieceTokenizer,
    folder: Path,
    *,
    length: int,
    held_out_rows: int,
    seed: int,
) -> None:
    """Tokenises and writes what `read_corpus` reads; its report comes last.

    Train documents of all sources are shuffled, and laid end to end.

    Args:
        held_out_rows: of each source, at most one document more.
    """
    tokens = {p.source.name: encode(p.train, tokenizer) for p in portions}
    documents = [ids for encoded in tokens.values() for ids in encoded]
    order_N = np.random.default_rng(seed).permutation(len(documents))
    shuffled = (documents[i] for i in order_N)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / _TRAIN, to_rows(shuffled, length, tokenizer.pad_id))
    reports = []
    for portion in portions:
        measured = _first(portion.held_out, tokenizer, held_out_rows * length)
        rows_NL = to_rows((ids for _, ids in measured), length, tokenizer.pad_id)
        np.save(folder / f"held_out_{portion.source.name}.npy", rows_NL)
        reports.append(
            SourceReport(
                name=portion.source.name,
                licence=portion.source.licence,
                origin=portion.source.origin,
                documents=len(portion.train),
                train_bytes=portion.train_bytes,
                train_tokens=sum(map(len, tokens[portion.source.name])),
                held_out_bytes=sum(num_bytes(document) for document, _ in measured),
                repeated=portion.repeated,
                same_prompt=portion.same_prompt,
                contaminated=portion.contaminated,
            )
        )
    atomic_write(folder / _REPORT, json.dumps([asdict(r) for r in reports], indent=1))


def _first(
    documents: list[Example], tokenizer: SentencePieceTokenizer, num_tokens: int
) -> list[tuple[Example, list[int]]]:
    """Documents with their tokens, until there are so many tokens."""
    chosen, total = [], 0
    for document, ids in zip(documents, encode(documents, tokenizer), strict=True):
        if total >= num_tokens:
            break
        chosen.append((document, ids))
        total += len(ids)
    return chosen


def to_rows(documents: Iterable[list[int]], length: int, pad_id: int) -> np.ndarray:
    """uint16 [N, L + 1]; the last row is padded."""
    ids_T = np.fromiter((i for ids in documents for i in ids), np.uint16)
    num_rows = max(1, -(-(len(ids_T) - 1) // length))
    padded_T = np.full(num_rows * length + 1, pad_id, np.uint16)
    padded_T[: len(ids_T)] = ids_T
    return np.lib.stride_tricks.sliding_window_view(padded_T, length + 1)[::length]


def has_corpus(folder: Path) -> bool:
    return (folder / _REPORT).is_file()


def tokenizer_path(folder: Path) -> Path:
    return folder / _TOKENIZER


def read_corpus(folder: Path) -> Corpus:
    reports = [SourceReport(**r) for r in json.loads((folder / _REPORT).read_text())]
    return Corpus(
        tokenizer=load_tokenizer(tokenizer_path(folder)),
        train_NL=np.load(folder / _TRAIN, mmap_mode="r"),
        held_out={r.name: np.load(folder / f"held_out_{r.name}.npy") for r in reports},
        reports=reports,
    )
