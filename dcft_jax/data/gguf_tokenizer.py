"""The tokenizer that a GGUF file carries in its metadata."""

import os
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from dcft_jax.data.sentencepiece_convert import Kind, Piece, byte_pair_backend
from dcft_jax.data.special_tokens import Declared

_PREFIX = "tokenizer.ggml."
_IDS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_LLAMA3 = rf"{_CONTRACTIONS}{_LETTERS}|\p{{N}}{{1,3}}{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}{_LETTERS}|\p{{N}}{_REST}"

# How text is split before merging, by `tokenizer.ggml.pre`; None: as GPT-2 does.
_SPLITS = {
    "llama-bpe": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama3": _LLAMA3,
    "qwen2": _QWEN2,
    "smollm": None,
    "gpt-2": None,
}


def read_gguf_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """The metadata of a GGUF file that its tokenizer is made of; no tensor is read.

    Raises:
        ImportError: the package `gguf` is not installed.
        ValueError: the file is no GGUF file.
    """
    try:
        import gguf
    except ImportError as error:
        raise ImportError(
            "GGUF files need the package gguf: pip install gguf"
        ) from error
    try:
        fields = gguf.GGUFReader(path).fields
    except (ValueError, IndexError) as error:
        raise ValueError(f"{str(path)!r} is no GGUF file: {error}") from error
    return {
        key: field.contents()
        for key, field in fields.items()
        if key.startswith("tokenizer.") or key == "general.architecture"
    }


def from_gguf(
    metadata: Mapping[str, Any], name: str
) -> tuple[tokenizers.Tokenizer, Declared]:
    """The backend that the metadata describe, and what they declare.

    Raises:
        ValueError: there is no tokenizer, or it is of a kind not supported.
    """
    missing = [key for key in ("model", "tokens") if _PREFIX + key not in metadata]
    if missing:
        raise ValueError(f"{name}: the file has no {_PREFIX}{missing[0]}")
    own = {
        key.removeprefix(_PREFIX): value
        for key, value in metadata.items()
        if key.startswith(_PREFIX)
    }
    if own["model"] == "gpt2":
        backend = _byte_level(own, name)
    elif own["model"] == "llama":
        gemma = str(metadata.get("general.architecture", "")).startswith("gemma")
        backend = _sentencepiece(own, gemma, name)
    else:
        raise ValueError(
            f"{name}: {_PREFIX}model is {own['model']!r}; supported are 'gpt2' "
            "(byte-level) and 'llama' (SentencePiece)"
        )
    tokens = own["tokens"]
    special = {key: tokens[own[i]] for key, i in _IDS.items() if i in own}
    eos_ids = tuple(own[key] for key in ("eot_token_id",) if key in own)
    template = metadata.get("tokenizer.chat_template")
    return backend, Declared(special=special, eos_ids=eos_ids, template=template)


def _byte_level(own: Mapping[str, Any], name: str) -> tokenizers.Tokenizer:
    pre = own.get("pre", "missing")
    if pre not in _SPLITS:
        raise ValueError(
            f"{name}: {_PREFIX}pre is {pre!r}; how it splits text is known only for "
            f"{sorted(_SPLITS)}. Take the tokenizer.json of the model instead"
        )
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(own["tokens"])},
            merges=[tuple(merge.split(" ", 1)) for merge in own["merges"]],
            ignore_merges=_SPLITS[pre] == _LLAMA3,
        )
    )
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = _pre_tokenizer(pre)
    backend.decoder = decoders.ByteLevel()
    _add_tokens(backend, own)
    return backend


def _pre_tokenizer(pre: str):
    if pre == "gpt-2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pre == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return pre_tokenizers.Sequence([digits, byte_level])
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLITS[pre]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _add_tokens(backend: tokenizers.Tokenizer, own: Mapping[str, Any]) -> None:
    added = {Kind.CONTROL: True, Kind.USER_DEFINED: False}
    kinds = own.get("token_type", [])
    backend.add_tokens(
        [
            AddedToken(token, normalized=False, special=added[kind])
            for token, kind in zip(own["tokens"], kinds, strict=False)
            if kind in added
        ]
    )


def _sentencepiece(
    own: Mapping[str, Any], gemma: bool, name: str
) -> tokenizers.Tokenizer:
    """Merges ranked by score, as llama.cpp does; Gemma's by id, as they were made.

    Gemma files spell tokens of several spaces with spaces, and their scores do not
    follow the order of the merges.
    """
    tokens, scores = own["tokens"], own.get("scores")
    kinds = own.get("token_type")
    if scores is None or kinds is None:
        raise ValueError(f"{name}: the file has no {_PREFIX}scores or token_type")
    pieces = [
        Piece(
            "\u2581" * len(token) if gemma and not token.strip(" ") else token,
            i if gemma else -scores[i],
            kinds[i],
        )
        for i, token in enumerate(tokens)
    ]
    unk = tokens[own["unknown_token_id"]] if "unknown_token_id" in own else None
    prefix = own.get("add_space_prefix", True)
    return byte_pair_backend(pieces, unk, "first" if prefix and not gemma else "never")
