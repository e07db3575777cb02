"""SentencePiece tokenizers that give back exactly the text that went in."""

import hashlib
import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from dcft_jax.data.atomic_write import atomic_write
from dcft_jax.data.role_symbols import RoleSymbols

ROLES = {"system": "<system>", "user": "<user>", "assistant": "<assistant>"}
MODEL_FILE = "tokenizer.model"
PAD, BOS, END = "<pad>", "<bos>", "<end>"

# SentencePiece writes a space as this character, so a text that contains the
# character itself would come back with a space. It is encoded as its UTF-8 bytes.
SPACE_MARK = "\u2581"


@dataclass(frozen=True)
class SentencePieceTokenizer:
    """Text to token ids and back, see `dcft_jax.data.tokenizer.Tokenizer`.

    Control symbols are never produced from text: a user who types "<end>" gets
    ordinary tokens, so content cannot forge the end of a turn or another role.

    Attributes:
        processor: the SentencePiece model.
        content_hash: identity of the model file; equal models have equal hashes.
        role_ids: id of the symbol that opens a message, for each role.
    """

    processor: sentencepiece.SentencePieceProcessor = field(repr=False, compare=False)
    content_hash: str
    pad_id: int
    bos_id: int
    end_id: int
    role_ids: dict[str, int] = field(compare=False)
    space_mark_ids: tuple[int, ...] = ()

    @property
    def vocab_size(self) -> int:
        return self.processor.vocab_size()

    @property
    def chat(self) -> RoleSymbols:
        return RoleSymbols(self)

    def encode(self, text: str) -> list[int]:
        ids = self.processor.encode(text.split(SPACE_MARK))
        return _join(ids, self.space_mark_ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Same as `encode` on each text, in one call that uses all cores."""
        if any(SPACE_MARK in text for text in texts):
            return [self.encode(text) for text in texts]
        return self.processor.encode(list(texts))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of the ids. Control symbols give no text."""
        return self.processor.decode([int(i) for i in ids])

    def is_control(self, token: int) -> bool:
        return self.processor.is_control(int(token))

    def piece(self, token: int) -> str:
        return self.processor.id_to_piece(int(token))

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `folder/tokenizer.model`."""
        atomic_write(Path(folder) / MODEL_FILE, self.processor.serialized_model_proto())


def _join(parts: list[list[int]], separator: Sequence[int]) -> list[int]:
    joined = list(parts[0])
    for part in parts[1:]:
        joined += [*separator, *part]
    return joined


def is_ours(path: str | os.PathLike) -> bool:
    """Whether a file is a SentencePiece model with the role symbols."""
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.load_from_serialized_proto(Path(path).read_bytes())
    except RuntimeError:
        return False
    return all(
        processor.is_control(processor.piece_to_id(symbol)) for symbol in ROLES.values()
    )


def load_tokenizer(path: str | os.PathLike) -> SentencePieceTokenizer:
    """Reads a SentencePiece model that has the symbols this project needs.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the file is no SentencePiece model, or symbols are missing.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"tokenizer.path: no file at {str(path)!r}; "
            "give a SentencePiece .model, or leave it empty to train one"
        )
    return _from_model(Path(path).read_bytes(), str(path))


def _from_model(model: bytes, name: str) -> SentencePieceTokenizer:
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise ValueError(
            f"tokenizer.path: {name!r} is no SentencePiece model"
        ) from error
    symbols = [PAD, BOS, END, *ROLES.values()]
    ids = {symbol: processor.piece_to_id(symbol) for symbol in symbols}
    missing = [s for s, i in ids.items() if not processor.is_control(i)]
    if not processor.is_byte(processor.piece_to_id("<0x00>")):
        missing.append("<0x00> (byte fallback)")
    if missing:
        raise ValueError(
            f"tokenizer.path: {name!r} lacks {missing}; use a model "
            "that has them, or leave the field empty to train one"
        )
    return SentencePieceTokenizer(
        processor=processor,
        content_hash=hashlib.blake2b(model, digest_size=16).hexdigest(),
        pad_id=ids[PAD],
        bos_id=ids[BOS],
        end_id=ids[END],
        role_ids={role: ids[symbol] for role, symbol in ROLES.items()},
        space_mark_ids=_byte_ids(processor, SPACE_MARK),
    )


def _byte_ids(processor, text: str) -> tuple[int, ...]:
    """Ids of the byte pieces that spell `text`."""
    return tuple(processor.piece_to_id(f"<0x{byte:02X}>") for byte in text.encode())


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, path: str | os.PathLike
) -> SentencePieceTokenizer:
    """Trains a byte-pair-encoding model on `texts` and writes it to `path`.

    Byte-pair encoding rather than a unigram model: it is a sequence of counted merges,
    so the result does not depend on the number of threads, and on small corpora it
    reaches the vocabulary size that was asked for where unigram pruning stops short.
    Nothing is normalised and no space is added or removed, so code keeps its
    indentation; characters outside the vocabulary become their UTF-8 bytes; every
    digit is a token (Kudo and Richardson, 2018, arXiv:1808.06226).

    Raises:
        ValueError: there is no text, or `vocab_size` does not suit the texts.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=vocab_size,
            **_TRAINER_OPTIONS,
        )
    except RuntimeError as error:
        raise ValueError(_explain(str(error), vocab_size)) from error
    atomic_write(path, model.getvalue())
    return _from_model(model.getvalue(), str(path))


_TRAINER_OPTIONS: dict[str, Any] = dict(
    model_type="bpe",
    byte_fallback=True,
    split_digits=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    add_dummy_prefix=False,
    allow_whitespace_only_pieces=True,
    max_sentence_length=1 << 24,  # bytes; longer texts would be left out in silence
    pad_id=0,
    bos_id=1,
    eos_id=2,
    unk_id=3,
    pad_piece=PAD,
    bos_piece=BOS,
    eos_piece=END,
    control_symbols=list(ROLES.values()),
    minloglevel=2,
)


def _explain(error: str, vocab_size: int) -> str:
    """What to do about an error of the SentencePiece trainer."""
    head = f"tokenizer.vocab_size={vocab_size}"
    if limit := re.search(r"set it to a value <= (\d+)", error):
        return (
            f"{head} is more than the train texts can fill; set at most {limit[1]}, "
            "or train on more text"
        )
    if limit := re.search(r"smaller than required_chars. \d+ vs (\d+)", error):
        return f"{head} cannot hold all bytes and characters; set at least {limit[1]}"
    if "sentences_.empty()" in error:
        return f"{head}: there is no text to train a tokenizer on"
    return f"{head}: training the tokenizer failed: {error}"


def cached_tokenizer(
    texts: Sequence[str], vocab_size: int, cache_dir: str | os.PathLike
) -> SentencePieceTokenizer:
    """`train_tokenizer`, but only once for the same texts and settings."""
    key = hashlib.blake2b(digest_size=16)
    key.update(repr((sentencepiece.__version__, vocab_size, _TRAINER_OPTIONS)).encode())
    for text in texts:
        content = text.encode()
        key.update(b"%d:" % len(content) + content)
    path = Path(cache_dir) / "tokenizers" / f"{key.hexdigest()}.model"
    if path.is_file():
        return load_tokenizer(path)
    return train_tokenizer(texts, vocab_size, path)
