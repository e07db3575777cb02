"""What the code of each family fixes, and what the keys of its config.json default to.

Both are those of the configuration and modeling files of `transformers` 5.24.
"""

from typing import Any

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text")

_PLAIN = dict(
    norm_offset=0.0,
    post_norms=False,
    scale_embeddings=False,
    query_scale=0.0,
    attention_softcap=0.0,
    logits_softcap=0.0,
    local_rope_theta=0.0,
)
_GEMMA = dict(norm_offset=1.0, post_norms=True, scale_embeddings=True, qkv_bias=False)

# Fields of ModelConfig that no key of the family's config.json can change.
FIXED: dict[str, dict[str, Any]] = {
    "llama": dict(_PLAIN, qkv_bias=False, qk_norm=False, sliding_window=0),
    "qwen2": dict(_PLAIN, qkv_bias=True, qk_norm=False),
    "qwen3": dict(_PLAIN, qkv_bias=False, qk_norm=True),
    "gemma2": dict(_GEMMA, qk_norm=False, local_rope_theta=0.0),
    "gemma3_text": dict(_GEMMA, qk_norm=True, attention_softcap=0.0),
}

# What a key means that config.json leaves out; None: derived from other keys.
_COMMON = dict(
    rms_norm_eps=1e-6, tie_word_embeddings=False, rope_theta=10_000.0, hidden_act="silu"
)
_QWEN = dict(
    _COMMON,
    vocab_size=151_936,
    hidden_size=4096,
    intermediate_size=22_016,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    max_position_embeddings=32_768,
    use_sliding_window=False,
    sliding_window=4096,
    max_window_layers=28,
)
_GEMMA_DEFAULTS = dict(
    rms_norm_eps=1e-6,
    tie_word_embeddings=True,
    hidden_size=2304,
    intermediate_size=9216,
    num_hidden_layers=26,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=256,
    hidden_activation="gelu_pytorch_tanh",
    query_pre_attn_scalar=256,
    sliding_window=4096,
)
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": dict(
        _COMMON,
        vocab_size=32_000,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=None,
        head_dim=None,
        max_position_embeddings=2048,
    ),
    "qwen2": dict(_QWEN, head_dim=None),
    "qwen3": dict(_QWEN, head_dim=128),
    "gemma2": dict(
        _GEMMA_DEFAULTS,
        vocab_size=256_000,
        rope_theta=10_000.0,
        max_position_embeddings=8192,
        final_logit_softcapping=30.0,
        attn_logit_softcapping=50.0,
    ),
    "gemma3_text": dict(
        _GEMMA_DEFAULTS,
        vocab_size=262_208,
        rope_theta=1_000_000.0,
        rope_local_base_freq=10_000.0,
        max_position_embeddings=131_072,
        final_logit_softcapping=None,
        attn_logit_softcapping=None,
        sliding_window_pattern=6,
    ),
}
