"""The decoder of a config, from its settings alone: no weights are read."""

from pathlib import Path

from ml_collections import ConfigDict

from dcft_jax.data import load_chat_tokenizer
from dcft_jax.models import ModelConfig, Settings, read_settings
from dcft_jax.models.pretrained.locate import locate
from dcft_jax.models.pretrained.opening import open_settings
from dcft_jax.training.base_model import decoder_of
from dcft_jax.training.run_as_base import is_run, run_as_base


def planned_model(config: ConfigDict, vocab_size: int | None = None) -> ModelConfig:
    """The decoder that training with this config would build.

    Of a model of `config.pretrained.path` that is not on this machine,
    `config.pretrained.settings` says what it is.

    Args:
      vocab_size: of the tokenizer that the data were prepared with; None: as the
        config says.

    Raises:
      ValueError: a field is out of range, or the family is not supported.
      FileNotFoundError: the settings are not here.
    """
    if config.pretrained.path:
        return decoder_of(config, _settings(config))
    return ModelConfig.from_config(
        config.model,
        vocab_size or _vocab_size(config.tokenizer),
        config.mesh.rules,
        config.lora,
    )


def _vocab_size(tokenizer: ConfigDict) -> int:
    if not tokenizer.path:
        return tokenizer.vocab_size
    return load_chat_tokenizer(
        tokenizer.path, tokenizer.chat_template, tokenizer.fold_system
    ).vocab_size


def _settings(config: ConfigDict) -> Settings:
    path, cache_dir = config.pretrained.path, config.data.cache_dir
    if is_run(path):
        path = run_as_base(path, cache_dir)
    elif config.pretrained.settings:
        return read_settings(Path(config.pretrained.settings))
    try:
        return open_settings(locate(path, Path(cache_dir), weights=False).path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}. To plan, the config.json of the model is enough: name it with "
            "--config.pretrained.settings=FILE"
        ) from error
