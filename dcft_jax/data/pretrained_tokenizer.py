"""Tokenizers that come with models: the entry point, and what is read from where."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from dcft_jax.data.build_tokenizer import build_tokenizer
from dcft_jax.data.gguf_tokenizer import from_gguf, read_gguf_metadata
from dcft_jax.data.hf_tokenizer import HFTokenizer
from dcft_jax.data.sentencepiece_convert import convert_sentencepiece
from dcft_jax.data.sentencepiece_tokenizer import MODEL_FILE, is_ours, load_tokenizer
from dcft_jax.data.special_tokens import read_declared
from dcft_jax.data.tokenizer import Tokenizer

_JSON_FILE = "tokenizer.json"


def load_chat_tokenizer(
    path: str | os.PathLike, chat_template: str = "", fold_system: bool = False
) -> Tokenizer:
    """The tokenizer at `path`, with its chat format.

    Nothing of a model runs but its chat template, in a sandbox.

    Args:
        path: a folder with tokenizer.json or tokenizer.model, one of these files, or a
            GGUF file. What a tokenizer.json says holds, even where transformers builds
            a part of the tokenizer anew by its class.
        chat_template: path of a .jinja file; empty: the tokenizer's own.
        fold_system: put system messages into the first user message, for templates
            that take none.

    Raises:
        FileNotFoundError: there is no tokenizer or no template.
        ValueError: it cannot be read, or template and tokenizer do not fit together.
    """
    source = vocabulary_file(path)
    if source.name.endswith(".model") and is_ours(source):
        if chat_template or fold_system:
            raise ValueError(
                f"config.tokenizer.path = {str(path)!r} is a SentencePiece model with "
                "role symbols; they are its chat format: leave "
                "config.tokenizer.chat_template empty and fold_system False"
            )
        return load_tokenizer(source)
    template = read_template(chat_template)
    if source.suffix == ".gguf":
        metadata = read_gguf_metadata(source)
        return load_gguf_tokenizer(metadata, str(source), template, fold_system)
    declared = read_declared(source.parent)
    if template is not None:
        declared = dataclasses.replace(declared, template=template)
    if source.name.endswith(".model"):
        backend, declared = convert_sentencepiece(source, declared)
    else:
        backend = _read_json(source)
    return build_tokenizer(backend, declared, str(path), fold_system)


def load_gguf_tokenizer(
    metadata: Mapping[str, Any],
    name: str,
    template: str | None = None,
    fold_system: bool = False,
) -> HFTokenizer:
    """The tokenizer that the metadata of a GGUF file hold.

    Args:
        metadata: the keys that begin with "tokenizer.", and "general.architecture".
        name: of the file, for messages.
        template: Jinja text; None: the file's own.
        fold_system: see `load_chat_tokenizer`.

    Raises:
        ValueError: see `from_gguf` and `build_tokenizer`.
    """
    backend, declared = from_gguf(metadata, name)
    if template is not None:
        declared = dataclasses.replace(declared, template=template)
    return build_tokenizer(backend, declared, name, fold_system)


def vocabulary_file(path: str | os.PathLike) -> Path:
    """The file that holds the vocabulary; raises FileNotFoundError."""
    path = Path(path)
    if path.is_file():
        return path
    for file in (_JSON_FILE, MODEL_FILE):
        if (path / file).is_file():
            return path / file
    there = "there is no such file or folder"
    if path.is_dir():
        there = f"neither {_JSON_FILE} nor {MODEL_FILE} is in that folder"
    raise FileNotFoundError(
        f"config.tokenizer.path = {str(path)!r}: {there}; give a folder of HuggingFace "
        "files, a tokenizer.json, a SentencePiece .model or a .gguf, or '' to train "
        "one on the train splits"
    )


def read_template(path: str) -> str | None:
    """Text of a template file, None for ""; raises FileNotFoundError."""
    if not path:
        return None
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"config.tokenizer.chat_template = {path!r}: there is no such file; give a "
            ".jinja file, or '' for the tokenizer's own"
        )
    return Path(path).read_text(encoding="utf-8")


def _read_json(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(
            f"config.tokenizer.path: {str(path)!r} is no tokenizer.json that "
            f"tokenizers {tokenizers.__version__} can read: {error}"
        ) from error
