"""ModelConfig -> the family that expresses it, and its HuggingFace `config.json`."""

import math
from typing import Any

from dcft_jax.models.config import ModelConfig
from dcft_jax.models.pretrained.families import FIXED

ACTIVATIONS = {"silu": "silu", "gelu": "gelu_pytorch_tanh"}
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}


def family_of(config: ModelConfig) -> str:
    """The `model_type` whose code computes what the decoder computes.

    Raises:
      ValueError: if there is none; names the fields that the closest family would need
        otherwise.
    """
    conflicts = {family: _conflicts(config, family) for family in FIXED}
    family = min(conflicts, key=lambda name: len(conflicts[name]))
    if conflicts[family]:
        raise ValueError(
            f"no HuggingFace family expresses this decoder; the closest, {family!r}, "
            f"needs {'; '.join(conflicts[family])}"
        )
    return family


def hf_config(config: ModelConfig, max_length: int) -> dict[str, Any]:
    """The content of config.json, without dtype and token identifiers.

    Positions are written with the keys of transformers 4, which transformers 5 and
    other readers take too.

    Args:
      config: a decoder that some family expresses.
      max_length: `max_position_embeddings`; the longest row the model is meant for.

    Raises:
      ValueError: see `family_of`; if the length is not positive.
    """
    if max_length < 1:
        raise ValueError(f"max_length={max_length} must be positive")
    family = family_of(config)
    activation = "hidden_activation" if "gemma" in family else "hidden_act"
    raw = {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        activation: ACTIVATIONS[config.activation],
        "rms_norm_eps": config.norm_eps,
        "max_position_embeddings": max_length,
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_scaling(config),
        "tie_word_embeddings": config.tie_embeddings,
        "use_cache": True,
    }
    if family != "qwen2":
        raw["attention_bias"] = False
    elif config.head_dim * config.num_heads == config.width:
        del raw["head_dim"]  # not a key of Qwen2, although its code looks for one
    if family == "llama":
        raw["mlp_bias"] = False
    if family != "llama":
        raw |= _windows(config, family)
    if "gemma" in family:
        raw |= _gemma(config, family)
    return raw


def _gemma(config: ModelConfig, family: str) -> dict[str, Any]:
    raw = {
        "query_pre_attn_scalar": round(config.attention_scale**-2),
        "final_logit_softcapping": config.logits_softcap or None,
        "attn_logit_softcapping": config.attention_softcap or None,
    }
    if family == "gemma3_text":
        raw["rope_local_base_freq"] = config.local_rope_theta or config.rope_theta
    return raw


def _windows(config: ModelConfig, family: str) -> dict[str, Any]:
    local = config.is_local()
    kinds = ["sliding_attention" if x else "full_attention" for x in local]
    raw: dict[str, Any] = {
        "layer_types": kinds,
        "sliding_window": config.sliding_window if any(local) else None,
    }
    if family.startswith("qwen"):
        raw["use_sliding_window"] = any(local)
        raw["max_window_layers"] = 0 if all(local) else config.num_layers
    if family == "gemma3_text" and config.global_every:
        raw["sliding_window_pattern"] = config.global_every
    return raw


def _rope_scaling(config: ModelConfig) -> dict[str, Any] | None:
    if config.rope_scaling == "none":
        return None
    scaling = {"rope_type": config.rope_scaling, "factor": config.rope_scaling_factor}
    if config.rope_scaling == "llama3":
        scaling |= {
            "low_freq_factor": config.rope_low_frequency_factor,
            "high_freq_factor": config.rope_high_frequency_factor,
            "original_max_position_embeddings": config.rope_original_length,
        }
    return scaling


def _conflicts(config: ModelConfig, family: str) -> list[str]:
    """What the family would need to be otherwise."""
    has = _normalised(config)
    found = [
        f"model.{field}={value!r}, not {has[field]!r}"
        for field, value in FIXED[family].items()
        if has[field] != value
    ]
    local = any(config.is_local())
    if family != "gemma3_text" and local and config.rope_scaling != "none":
        found.append(
            f"model.rope_scaling='none' next to windowed layers, not "
            f"{config.rope_scaling!r}"
        )
    scale = config.attention_scale
    if "gemma" in family and not math.isclose(round(scale**-2) ** -0.5, scale):
        found.append(
            f"model.query_scale to be n ** -0.5 for an integer n, not "
            f"{config.query_scale!r}"
        )
    if not family.startswith("qwen") and config.width % config.num_heads:
        found.append(
            f"model.width={config.width} to be a multiple of "
            f"model.num_heads={config.num_heads}"
        )
    return found


def _normalised(config: ModelConfig) -> dict[str, Any]:
    """Fields of which several values mean the same, with one value each."""
    has = {field: getattr(config, field) for field in config.__dataclass_fields__}
    if math.isclose(config.attention_scale, config.head_dim**-0.5):
        has["query_scale"] = 0.0
    if not any(config.is_local()):
        has["sliding_window"] = 0
        has["local_rope_theta"] = 0.0
    elif config.local_rope_theta == config.rope_theta:
        has["local_rope_theta"] = 0.0
    return has
