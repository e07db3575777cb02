"""SentencePiece models of other people (Llama 2, Gemma) as HuggingFace tokenizers."""

import dataclasses
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import tokenizers
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from dcft_jax.data.special_tokens import Declared

_BPE = 2  # TrainerSpec.ModelType


class Kind(IntEnum):
    """Types of pieces, in SentencePiece files as in GGUF files."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Piece(NamedTuple):
    text: str
    rank: float  # lower is merged first
    kind: int


def convert_sentencepiece(
    path: Path, declared: Declared
) -> tuple[tokenizers.Tokenizer, Declared]:
    """The backend of a byte-pair model, and `declared` with its beginning and end.

    Ids are those that transformers gives, whose classes for Llama and Gemma rank merges
    by id. Unlike there, control pieces take no part in merges, as in SentencePiece
    itself: text can never become one.

    Raises:
        ValueError: the file is no SentencePiece model, or of a kind not supported.
    """
    proto = sentencepiece_model_pb2.ModelProto()  # pyright: ignore
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(
            f"config.tokenizer.path: {str(path)!r} is no SentencePiece model"
        ) from error
    spec = proto.normalizer_spec
    if proto.trainer_spec.model_type != _BPE:
        raise ValueError(
            f"config.tokenizer.path: {str(path)!r} is no byte-pair model; of "
            "SentencePiece models that are not ours only those are supported: convert "
            "it to a tokenizer.json"
        )
    if spec.precompiled_charsmap or spec.remove_extra_whitespaces:
        raise ValueError(
            f"config.tokenizer.path: {str(path)!r} normalises text "
            f"(rule {spec.name!r}, remove_extra_whitespaces="
            f"{spec.remove_extra_whitespaces}); models that do are not supported: "
            "convert it to a tokenizer.json"
        )
    pieces = [Piece(p.piece, i, p.type) for i, p in enumerate(proto.pieces)]
    trainer = proto.trainer_spec
    backend = byte_pair_backend(
        pieces,
        unk=trainer.unk_piece,
        prefix=_prefix(declared, spec.add_dummy_prefix),
    )
    own = {
        name: pieces[i].text
        for name, i in (("bos_token", trainer.bos_id), ("eos_token", trainer.eos_id))
        if i >= 0
    }
    own["unk_token"] = trainer.unk_piece
    special = {**own, **declared.special}
    return backend, dataclasses.replace(declared, special=special)


def _prefix(declared: Declared, dummy: bool) -> str:
    """Which parts of a text get a space in front: "always", "first" or "never".

    "first" is what transformers' class for Llama does unless "legacy" is set: only the
    start of the text, not what follows a control token.
    """
    given = declared.settings.get("add_prefix_space")
    if not (dummy if given is None else given):
        return "never"
    return "always" if declared.settings.get("legacy", False) else "first"


def byte_pair_backend(
    pieces: Sequence[Piece], unk: str | None, prefix: str
) -> tokenizers.Tokenizer:
    """A tokenizer that merges pieces by rank and spells the rest in bytes.

    Args:
        pieces: by id.
        unk: the piece for what cannot be spelled.
        prefix: see `_prefix`.
    """
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab={piece.text: i for i, piece in enumerate(pieces)},
            merges=_merges(pieces),
            unk_token=unk,
            fuse_unk=True,
            byte_fallback=any(piece.kind == Kind.BYTE for piece in pieces),
        )
    )
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix == "never":
        backend.normalizer = normalizers.Replace(" ", "\u2581")
        backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement="\u2581", prepend_scheme=prefix, split=False
        )
        steps.append(decoders.Strip(content=" ", left=1))
    backend.decoder = decoders.Sequence(steps)
    added = (Kind.CONTROL, Kind.USER_DEFINED)
    backend.add_tokens(
        [
            AddedToken(p.text, normalized=False, special=p.kind == Kind.CONTROL)
            for p in pieces
            if p.kind in added
        ]
    )
    return backend


def _merges(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """All ways to join two pieces into one, the lowest rank of the joined first."""
    kinds = (Kind.NORMAL, Kind.USER_DEFINED)
    rank = {piece.text: piece.rank for piece in pieces if piece.kind in kinds}
    merges = [
        (joined, text[:cut], text[cut:])
        for text, joined in rank.items()
        for cut in range(1, len(text))
        if text[:cut] in rank and text[cut:] in rank
    ]
    merges.sort(key=lambda m: (m[0], len(m[1]), len(m[2])))
    return [(left, right) for _, left, right in merges]
