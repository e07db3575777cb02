"""Decoders: one set of parts whose settings are Llama, SmolLM, Qwen and Gemma."""

from dcft_jax.models.config import ModelConfig, check_mesh
from dcft_jax.models.decoder import STACKED, Params, Tap, apply, hidden, init, unembed
from dcft_jax.models.loss import token_correct, token_nll
from dcft_jax.models.pretrained import (
    Pretrained,
    abstract_params,
    load_params,
    load_pretrained,
    read_config,
    save_pretrained,
)
from dcft_jax.models.response import response_targets, score_responses

__all__ = [
    "STACKED",
    "ModelConfig",
    "Params",
    "Pretrained",
    "Tap",
    "abstract_params",
    "apply",
    "check_mesh",
    "hidden",
    "init",
    "load_params",
    "load_pretrained",
    "read_config",
    "response_targets",
    "save_pretrained",
    "score_responses",
    "token_correct",
    "token_nll",
    "unembed",
]
