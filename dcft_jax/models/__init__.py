"""Decoders: one set of parts whose settings are Llama, SmolLM, Qwen and Gemma."""

from dcft_jax.models.config import ModelConfig, check_mesh
from dcft_jax.models.decoder import STACKED, Params, Tap, apply, hidden, init, unembed
from dcft_jax.models.generate import generate, stream
from dcft_jax.models.lora import LoRA, combine, merge, split
from dcft_jax.models.loss import token_correct, token_nll
from dcft_jax.models.pretrained import (
    Opened,
    Pretrained,
    Settings,
    abstract_params,
    config_of,
    load_params,
    load_pretrained,
    open_pretrained,
    read_config,
    read_settings,
    save_pretrained,
)
from dcft_jax.models.quantized import quantize_kernels
from dcft_jax.models.response import response_targets, score_responses
from dcft_jax.models.sampling import Sampling

__all__ = [
    "STACKED",
    "LoRA",
    "ModelConfig",
    "Opened",
    "Params",
    "Pretrained",
    "Sampling",
    "Settings",
    "Tap",
    "abstract_params",
    "apply",
    "check_mesh",
    "combine",
    "config_of",
    "generate",
    "hidden",
    "init",
    "load_params",
    "load_pretrained",
    "merge",
    "open_pretrained",
    "quantize_kernels",
    "read_config",
    "read_settings",
    "response_targets",
    "save_pretrained",
    "score_responses",
    "split",
    "stream",
    "token_correct",
    "token_nll",
    "unembed",
]
