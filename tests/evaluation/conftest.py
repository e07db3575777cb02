"""A tokenizer with a chat format, and a small random model for it."""

import pytest

from configs import base
from dcft_jax.data import Tokenizer, train_tokenizer
from dcft_jax.models import ModelConfig
from tests.models.tiny_decoder import TINY, random_params

WORDS = [
    "sun",
    "neon",
    "add",
    "three",
    "and",
    "seven",
    "reverse",
    "the",
    "word",
    "please",
    "what",
    "is",
    "it",
    "of",
]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = [f"{a} {b} {i}" for i, a in enumerate(WORDS) for b in WORDS]
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    return train_tokenizer(texts, 320, path)


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> ModelConfig:
    config = base.get_config()
    config.model.update(TINY)
    return ModelConfig.from_config(
        config.model, tokenizer.vocab_size, config.mesh.rules
    )


@pytest.fixture(scope="session")
def params(model: ModelConfig):
    return random_params(model)
