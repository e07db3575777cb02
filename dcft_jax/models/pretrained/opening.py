"""A checkpoint opened: its settings, its headers, and where its tensors belong."""

import json
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dcft_jax.models.config import ModelConfig
from dcft_jax.models.pretrained import gguf_file, placing
from dcft_jax.models.pretrained.checkpoint import Checkpoint
from dcft_jax.models.pretrained.from_hf import text_part
from dcft_jax.models.pretrained.locate import CONFIG
from dcft_jax.models.pretrained.safetensors_files import open_safetensors
from dcft_jax.models.pretrained.tensors import (
    PREFIXES,
    Entry,
    gguf_tensors,
    hf_tensors,
)

VISION = re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\..*")
HEADS = re.compile(r"(language_model\.)?lm_head\.weight")
# Old Llama checkpoints carry the frequencies, which follow from the settings.
IGNORED = re.compile(r".*\.rotary_emb\.inv_freq|" + re.escape(gguf_file.ROPE_FREQS))
ROWS = 8192  # of a table, compared at a time


class Settings(NamedTuple):
    """What a model is, as the keys of a HuggingFace config.json."""

    raw: dict[str, Any]
    where: str  # the name of their file, for messages


def open_settings(path: Path) -> Settings:
    """Settings alone, of a folder or a GGUF file.

    Raises:
      FileNotFoundError: if there are none.
      ValueError: if the family is not supported.
    """
    if path.suffix == ".gguf":
        return open_all(path)[0]
    file = path / CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"{path}: there is no {CONFIG}")
    return read_settings(file)


def read_settings(file: Path) -> Settings:
    """Of a config.json, whatever its name.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: it is no JSON, or the family is not supported.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file")
    try:
        raw = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: no JSON: {error}") from error
    return Settings(text_part(raw, str(file)), str(file))


def open_all(path: Path) -> tuple[Settings, Checkpoint]:
    """Settings and the headers of the weights."""
    if path.suffix == ".gguf":
        checkpoint, raw = gguf_file.open_gguf(path)
        return Settings(raw, str(path)), checkpoint
    settings = open_settings(path)
    return settings, open_safetensors(path)


def match(
    config: ModelConfig, settings: Settings, checkpoint: Checkpoint
) -> list[Entry]:
    """Where the tensors of the checkpoint belong, checked against the decoder.

    Raises:
      ValueError: if a tensor is missing, unexpected or of another shape.
    """
    if checkpoint.path.suffix == ".gguf":
        entries = gguf_tensors(config, settings.raw["model_type"])
        placing.check(config, entries, checkpoint, IGNORED)
        return entries
    names = checkpoint.tensors
    prefix = next((p for p in PREFIXES if f"{p}embed_tokens.weight" in names), "model.")
    entries = hf_tensors(config, prefix)
    skipped = [] if prefix == "model." else [n for n in names if VISION.fullmatch(n)]
    heads = [n for n in names if config.tie_embeddings and HEADS.fullmatch(n)]
    extra = "|".join([IGNORED.pattern, *map(re.escape, [*skipped, *heads])])
    placing.check(config, entries, checkpoint, re.compile(extra))
    for head in heads:
        _check_tied(checkpoint, f"{prefix}embed_tokens.weight", head)
    if skipped:
        warnings.warn(
            f"{checkpoint.path}: only the text part is loaded; {len(skipped)} tensors "
            "of vision_tower and multi_modal_projector are skipped",
            stacklevel=3,
        )
    return entries


def _check_tied(checkpoint: Checkpoint, table: str, head: str) -> None:
    """Some files repeat the embeddings as the head; it must be a repetition."""
    size = checkpoint.tensors[table].shape[0]
    for start in range(0, size, ROWS):
        rows = (slice(start, min(start + ROWS, size)), slice(None))
        one, other = checkpoint.read(table, rows), checkpoint.read(head, rows)
        if not np.array_equal(one, other):
            raise ValueError(
                f"{checkpoint.tensors[head].file}: tensor {head!r} differs from "
                f"{table!r}, although tie_word_embeddings says they are one; set it to "
                f"false in {CONFIG} to use both"
            )
