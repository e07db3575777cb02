"""Decoders: one set of parts whose settings are Llama, SmolLM, Qwen and Gemma."""

from dcft_jax.models.config import ModelConfig, check_mesh
from dcft_jax.models.decoder import STACKED, Params, Tap, apply, hidden, init, unembed
from dcft_jax.models.generate import generate, stream
from dcft_jax.models.loss import token_correct, token_nll
from dcft_jax.models.response import response_targets, score_responses
from dcft_jax.models.sampling import Sampling

__all__ = [
    "STACKED",
    "ModelConfig",
    "Params",
    "Sampling",
    "Tap",
    "apply",
    "check_mesh",
    "generate",
    "hidden",
    "init",
    "response_targets",
    "score_responses",
    "stream",
    "token_correct",
    "token_nll",
    "unembed",
]
