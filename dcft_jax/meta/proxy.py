"""The small decoders that experience is collected with."""

from dcft_jax.models import ModelConfig
from dcft_jax.sharding import Rules

HEAD_DIM = 16


def proxy_model(vocab_size: int, width: int = 64, num_layers: int = 3) -> ModelConfig:
    """A decoder of 0.1 to 0.4 M parameters that computes in float32.

    Raises:
      ValueError: a width that is no multiple of twice the head dimension.
    """
    if width % (2 * HEAD_DIM):
        raise ValueError(f"width={width} must be a multiple of {2 * HEAD_DIM}")
    return ModelConfig(
        vocab_size=vocab_size,
        rules=Rules(()),
        num_layers=num_layers,
        width=width,
        hidden=3 * width,
        num_heads=width // HEAD_DIM,
        num_kv_heads=width // (2 * HEAD_DIM),
        head_dim=HEAD_DIM,
        activation="silu",
        rope_theta=10_000.0,
        norm_eps=1e-6,
        norm_offset=0.0,
        post_norms=False,
        qkv_bias=False,
        qk_norm=True,
        query_scale=0.0,
        attention_softcap=0.0,
        logits_softcap=0.0,
        sliding_window=0,
        global_every=0,
        local_rope_theta=0.0,
        rope_scaling="none",
        rope_scaling_factor=1.0,
        rope_low_frequency_factor=1.0,
        rope_high_frequency_factor=4.0,
        rope_original_length=8192,
        scale_embeddings=False,
        tie_embeddings=True,
        remat="none",
        param_dtype="float32",
        compute_dtype="float32",
    )
