"""Where each tensor of a checkpoint belongs in the parameters, for both directions.

Names of HuggingFace files are those of the modeling files of `transformers` 5.24, names
of GGUF files those of the `gguf` package.
"""

from typing import NamedTuple

from dcft_jax.models.config import ModelConfig

# Of HuggingFace text models, and of the text part of multimodal ones, old and new.
PREFIXES = ("model.", "language_model.model.", "model.language_model.")


class Entry(NamedTuple):
    """A leaf of the parameters and the tensor, or one per layer, that it comes from."""

    leaf: str
    name: str  # `{layer}` stands for the number of the layer
    equation: str  # layout.py


def hf_tensors(config: ModelConfig, prefix: str = "model.") -> list[Entry]:
    """The tensors of a HuggingFace checkpoint whose names start with `prefix`."""
    rows = list(_HF_LAYER)
    rows += _HF_FOUR_NORMS if config.post_norms else _HF_TWO_NORMS
    rows += _HF_BIASES if config.qkv_bias else ()
    rows += _HF_QK_NORMS if config.qk_norm else ()
    entries = [Entry(leaf, prefix + name, equation) for leaf, name, equation in _HF_TOP]
    entries += _per_layer(rows, f"{prefix}layers.{{layer}}.")
    if not config.tie_embeddings:
        # "model.language_model." has its head outside, as "model." has.
        outer = "language_model." if prefix == "language_model.model." else ""
        entries.append(Entry("head/kernel", f"{outer}lm_head.weight", "V,D->D,V"))
    return entries


def gguf_tensors(config: ModelConfig, architecture: str) -> list[Entry]:
    """The tensors of a GGUF file.

    "llama" keeps the two channels that the rotary embedding turns together next to each
    other; the other architectures, HuggingFace and ours keep them half a head apart.
    """
    pairs = "RP" if architecture == "llama" else "PR"
    rows = list(_GGUF_LAYER)
    rows += [
        ("attention/query/kernel", "attn_q.weight", f"H{pairs},D->D,H,PR"),
        ("attention/key/kernel", "attn_k.weight", f"G{pairs},D->D,G,PR"),
    ]
    rows += _GGUF_BIASES if config.qkv_bias else ()
    rows += _GGUF_QK_NORMS if config.qk_norm else ()
    entries = [Entry(*row) for row in _GGUF_TOP] + _per_layer(rows, "blk.{layer}.")
    if not config.tie_embeddings:
        entries.append(Entry("head/kernel", "output.weight", "V,D->D,V"))
    return entries


def _per_layer(rows: list[tuple[str, str, str]], prefix: str) -> list[Entry]:
    return [Entry(f"layers/{leaf}", prefix + name, eq) for leaf, name, eq in rows]


_HF_TOP = (
    ("embed/embedding", "embed_tokens.weight", "V,D->V,D"),
    ("final_norm/scale", "norm.weight", "D->D"),
)
_HF_LAYER = (
    ("attention_norm/scale", "input_layernorm.weight", "D->D"),
    ("attention/query/kernel", "self_attn.q_proj.weight", "HC,D->D,H,C"),
    ("attention/key/kernel", "self_attn.k_proj.weight", "GC,D->D,G,C"),
    ("attention/value/kernel", "self_attn.v_proj.weight", "GC,D->D,G,C"),
    ("attention/out/kernel", "self_attn.o_proj.weight", "D,HC->H,C,D"),
    ("mlp/gate/kernel", "mlp.gate_proj.weight", "F,D->D,F"),
    ("mlp/up/kernel", "mlp.up_proj.weight", "F,D->D,F"),
    ("mlp/down/kernel", "mlp.down_proj.weight", "D,F->F,D"),
)
_HF_BIASES = (
    ("attention/query/bias", "self_attn.q_proj.bias", "HC->H,C"),
    ("attention/key/bias", "self_attn.k_proj.bias", "GC->G,C"),
    ("attention/value/bias", "self_attn.v_proj.bias", "GC->G,C"),
)
_HF_QK_NORMS = (
    ("attention/query_norm/scale", "self_attn.q_norm.weight", "C->C"),
    ("attention/key_norm/scale", "self_attn.k_norm.weight", "C->C"),
)
_HF_TWO_NORMS = (("mlp_norm/scale", "post_attention_layernorm.weight", "D->D"),)
_HF_FOUR_NORMS = (
    ("attention_post_norm/scale", "post_attention_layernorm.weight", "D->D"),
    ("mlp_norm/scale", "pre_feedforward_layernorm.weight", "D->D"),
    ("mlp_post_norm/scale", "post_feedforward_layernorm.weight", "D->D"),
)
_GGUF_TOP = (
    ("embed/embedding", "token_embd.weight", "V,D->V,D"),
    ("final_norm/scale", "output_norm.weight", "D->D"),
)
_GGUF_LAYER = (
    ("attention_norm/scale", "attn_norm.weight", "D->D"),
    ("attention/value/kernel", "attn_v.weight", "GC,D->D,G,C"),
    ("attention/out/kernel", "attn_output.weight", "D,HC->H,C,D"),
    ("mlp_norm/scale", "ffn_norm.weight", "D->D"),
    ("mlp/gate/kernel", "ffn_gate.weight", "F,D->D,F"),
    ("mlp/up/kernel", "ffn_up.weight", "F,D->D,F"),
    ("mlp/down/kernel", "ffn_down.weight", "D,F->F,D"),
)
_GGUF_BIASES = (
    ("attention/query/bias", "attn_q.bias", "HC->H,C"),
    ("attention/key/bias", "attn_k.bias", "GC->G,C"),
    ("attention/value/bias", "attn_v.bias", "GC->G,C"),
)
_GGUF_QK_NORMS = (
    ("attention/query_norm/scale", "attn_q_norm.weight", "C->C"),
    ("attention/key_norm/scale", "attn_k_norm.weight", "C->C"),
)
