"""Tiny random models of every family, with the logits that transformers gives them.

Run by hand, from the repository's root, in an environment with transformers and torch:

    PYTHONPATH=. python tests/models/make_fixtures.py

Writes tests/models/fixtures/<family>/: config.json, model.safetensors, expected.npz.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers

FIXTURES = Path(__file__).parent / "fixtures"
V, LENGTH = 96, 24
SIZES = dict(
    vocab_size=V,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
)
LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
GEMMA = dict(SIZES, head_dim=8, query_pre_attn_scalar=12, sliding_window=5)
GEMMA3 = dict(
    GEMMA,
    num_hidden_layers=4,
    sliding_window_pattern=3,
    rope_theta=1_000_000.0,
    rope_local_base_freq=10_000.0,
    rope_scaling=dict(rope_type="linear", factor=8.0),
)
VISION = dict(
    hidden_size=8,
    intermediate_size=8,
    num_hidden_layers=1,
    num_attention_heads=1,
    image_size=8,
    patch_size=4,
)


def models() -> dict[str, transformers.PreTrainedConfig]:
    t = transformers
    multimodal = dict(
        text_config=dict(GEMMA3, rms_norm_eps=1e-5),
        vision_config=VISION,
        mm_tokens_per_image=4,
        image_token_index=V - 1,
        boi_token_index=V - 2,
        eoi_token_index=V - 3,
    )
    no_groups = dict(SIZES, num_key_value_heads=4)
    return {
        "llama2": t.LlamaConfig(**no_groups, rms_norm_eps=1e-5),
        # Of the four frequencies one is kept, one interpolated, two are divided.
        "llama3": t.LlamaConfig(
            **SIZES, head_dim=8, rope_theta=100.0, rope_scaling=LLAMA3
        ),
        "llama_linear": t.LlamaConfig(
            **SIZES, head_dim=8, rope_scaling=dict(rope_type="linear", factor=4.0)
        ),
        "smollm2": t.LlamaConfig(
            **SIZES, rope_theta=100_000.0, tie_word_embeddings=True, dtype="bfloat16"
        ),
        "qwen2": t.Qwen2Config(**SIZES, rope_theta=1_000_000.0),
        "qwen3": t.Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=True),
        "gemma2": t.Gemma2Config(
            **GEMMA, attn_logit_softcapping=2.0, final_logit_softcapping=3.0
        ),
        "gemma3_text": t.Gemma3TextConfig(**GEMMA3),
        "gemma3": t.Gemma3Config(**multimodal),
    }


def build(config: transformers.PreTrainedConfig) -> torch.nn.Module:
    """A model whose every parameter is random, so that no term drops out."""
    is_multimodal = config.model_type == "gemma3"
    auto = transformers.AutoModelForImageTextToText
    auto = auto if is_multimodal else transformers.AutoModelForCausalLM
    dtype = config.dtype or torch.float32
    model = auto.from_config(config, attn_implementation="eager", dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            start = 0.0 if "gemma" in config.model_type or parameter.ndim > 1 else 1.0
            start = 0.0 if name.endswith("bias") else start
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(start + 0.3 * noise)
    return model.eval()


def rows() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Tokens and positions of each case."""
    rng = np.random.default_rng(0)
    plain, long = rng.integers(0, V - 3, (2, LENGTH)), rng.integers(0, V - 3, (1, 64))
    return {
        "plain": (plain, np.broadcast_to(np.arange(LENGTH), plain.shape)),
        # Beyond the original context of 32, and beyond the whole one of 64.
        "long": (long, np.arange(64)[None]),
        "far": (plain, np.broadcast_to(np.arange(LENGTH) * 37, plain.shape)),
    }


def logits(model, tokens_BL: np.ndarray, positions_BL: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        tokens, positions = torch.tensor(tokens_BL), torch.tensor(positions_BL)
        mask = torch.ones_like(tokens)
        out = model(input_ids=tokens, attention_mask=mask, position_ids=positions)
    return out.logits.float().numpy()


def main() -> None:
    for name, config in models().items():
        folder = FIXTURES / name
        shutil.rmtree(folder, ignore_errors=True)
        model = build(config)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        model = model.float()
        expected = {}
        for case, (tokens_BL, positions_BL) in rows().items():
            expected[f"{case}_tokens"] = tokens_BL.astype(np.int32)
            expected[f"{case}_positions"] = positions_BL.astype(np.int32)
            expected[f"{case}_logits"] = logits(model, tokens_BL, positions_BL)
        np.savez_compressed(folder / "expected.npz", **expected)
        size = (folder / "model.safetensors").stat().st_size
        print(name, json.loads((folder / "config.json").read_text()).keys(), size)


if __name__ == "__main__":
    main()
