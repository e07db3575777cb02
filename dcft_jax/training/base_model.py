"""The model that a run starts from, if it does not start from nothing."""

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from dcft_jax.data import Tokenizer, check_vocabulary, load_chat_tokenizer
from dcft_jax.models import (
    STACKED,
    LoRA,
    ModelConfig,
    Opened,
    Params,
    Settings,
    abstract_params,
    config_of,
    load_params,
    open_pretrained,
    quantize_kernels,
    read_settings,
)


def open_base(config: ConfigDict) -> Opened | None:
    """The model of `config.pretrained`; its weights are not read yet.

    Raises:
      ValueError, OSError: there is no such model; see `load_pretrained`.
    """
    # Exporting loads a run, and that loads its base with what is here.
    from dcft_jax.training.run_as_base import is_run, run_as_base

    path, cache_dir = config.pretrained.path, config.data.cache_dir
    if not path:
        return None
    if is_run(path):
        path = run_as_base(path, cache_dir)
    return open_pretrained(path, cache_dir)


def hash_of(base: Opened | None) -> str:
    """Of its weights; "" for none."""
    return base.content_hash if base else ""


def base_tokenizer(config: ConfigDict, base: Opened | None) -> Tokenizer | None:
    """The tokenizer of the base; None where the config names another."""
    if base is None or config.tokenizer.path:
        return None
    options = config.tokenizer
    return load_chat_tokenizer(base.path, options.chat_template, options.fold_system)


def make_model(
    config: Mapping[str, Any], tokenizer: Tokenizer, base: Opened | None
) -> ModelConfig:
    """The decoder of a run: that of its base, or the one of `config.model`.

    Args:
      config: reads `model`, `lora` and `mesh`.

    Raises:
      ValueError: a field is out of range, or the tokenizer does not fit the base.
    """
    if base is None:
        return ModelConfig.from_config(
            config["model"],
            tokenizer.vocab_size,
            config["mesh"]["rules"],
            config["lora"],
        )
    ours = decoder_of(config, base.settings)
    check_vocabulary(tokenizer, ours.vocab_size, base.source)
    return ours


def decoder_of(config: Mapping[str, Any], settings: Settings) -> ModelConfig:
    """The decoder of other people's settings, with the options of this run."""
    model = config["model"]
    ours = config_of(
        settings,
        config["mesh"]["rules"],
        param_dtype=model["param_dtype"],
        compute_dtype=model["compute_dtype"],
        remat=model["remat"],
    )
    return dataclasses.replace(
        ours,
        logits_chunk=model["logits_chunk"],
        attention=model.get("attention", "auto"),
        lora=LoRA.from_config(config["lora"]),
    )


def check_planned(config: ConfigDict, model: ModelConfig) -> None:
    """Warns if `config.pretrained.settings` is of another decoder than the base."""
    file = config.pretrained.settings
    if not file:
        return
    planned = decoder_of(config, read_settings(Path(file)))
    for field in dataclasses.fields(ModelConfig):
        there, here = getattr(planned, field.name), getattr(model, field.name)
        if there != here:
            warnings.warn(
                f"config.pretrained.settings = {file}: has {field.name} {there}, "
                f"{config.pretrained.path} has {here}; plans are for another model",
                stacklevel=2,
            )


def load_base(
    base: Opened, model: ModelConfig, mesh: jax.sharding.Mesh, quantize: str = "none"
) -> Params:
    """The weights of the base in the shards of the mesh, without adapters.

    `quantize`: `config.pretrained.quantize`, of the kernels of the layers.
    """
    plain = dataclasses.replace(model, lora=None)
    params = load_params(base, plain, abstract_params(plain, mesh))
    with jax.set_mesh(mesh):
        return params | {STACKED: quantize_kernels(params[STACKED], quantize)}
