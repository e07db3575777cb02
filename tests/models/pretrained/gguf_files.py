"""Small GGUF files, written by the gguf package, and the parameters they stand for."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from dcft_jax.models import ModelConfig
from tests.models.pretrained.checkpoints import random_params
from tests.models.pretrained.test_save import make

QUANTISED = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K")
FAMILIES = dict(
    llama=dict(),
    qwen2=dict(qkv_bias=True, tie_embeddings=False),
    qwen3=dict(qk_norm=True),
)
Kind = gguf.GGMLQuantizationType


def write_gguf(
    path: Path, family: str, kind: str, extra: dict[str, Any] | None = None, **fields
) -> tuple[ModelConfig, dict[str, Any]]:
    """A model of random weights; returns what must be loaded, dequantised here.

    Args:
      extra: metadata of the family, tensors if they are arrays.
      fields: of the decoder; those of the family are set.
    """
    # Blocks of Q4_K are 256 numbers of a row.
    width = 256 if kind == "Q4_K" else 32
    # transformers reads no size of a head from a GGUF file: these are its defaults.
    head = 128 if family == "qwen3" else width // 4
    sizes = dict(num_layers=2, width=width, hidden=width, head_dim=head, rope_theta=1e5)
    config = make(**{**sizes, "compute_dtype": "float32", **FAMILIES[family], **fields})
    params, writer = random_params(config), gguf.GGUFWriter(path, family)
    _write_settings(writer, config)
    for name, value in (extra or {}).items():
        if isinstance(value, np.ndarray):
            writer.add_tensor(name, value)
        elif isinstance(value, str):
            writer.add_string(f"{family}.{name}", value)
        elif isinstance(value, float):
            writer.add_float32(f"{family}.{name}", value)
        else:
            writer.add_uint32(f"{family}.{name}", value)
    loaded = _write_tensors(writer, config, params, family, Kind[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return config, loaded


def _write_settings(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    writer.add_context_length(64)
    writer.add_block_count(config.num_layers)
    writer.add_embedding_length(config.width)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _write_tensors(writer, config, params, family, kind) -> dict[str, Any]:
    def vector(name: str, x: np.ndarray) -> np.ndarray:
        writer.add_tensor(name, np.ascontiguousarray(x, np.float32))
        return x

    def matrix(name: str, x: np.ndarray, heads: int = 0) -> np.ndarray:
        """Rows are outputs; those of `heads` are reordered as llama.cpp has them."""
        rows, used, decoded = _encode(np.ascontiguousarray(x, np.float32), kind)
        if heads and family == "llama":
            rows = rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1)
            rows = rows.swapaxes(1, 2).reshape(-1, rows.shape[-1])
        writer.add_tensor(name, np.ascontiguousarray(rows), raw_dtype=used)
        return decoded

    def layer(i: int) -> dict[str, Any]:
        p, blk = _layer(params["layers"], i), f"blk.{i}."
        attention, mlp, new = p["attention"], p["mlp"], {}
        heads = dict(query=config.num_heads, key=config.num_kv_heads, value=0, out=0)
        for part, turned in heads.items():
            name = dict(out="attn_output").get(part, f"attn_{part[0]}")
            kernel = attention[part]["kernel"]  # [D, H, C], that of out [H, C, D]
            last = kernel.shape[-1] if part == "out" else kernel.shape[0]
            flat = (
                kernel.reshape(-1, last) if part == "out" else kernel.reshape(last, -1)
            )
            got = matrix(f"{blk}{name}.weight", flat.T, turned)
            new[part] = {"kernel": got.T.reshape(kernel.shape)}
            if config.qkv_bias and part != "out":
                bias = attention[part]["bias"]
                vector(f"{blk}{name}.bias", bias.reshape(-1))
                new[part]["bias"] = bias
        for part in ("query_norm", "key_norm") if config.qk_norm else ():
            name = f"{blk}attn_{part[0]}_norm.weight"
            new[part] = {"scale": vector(name, attention[part]["scale"])}
        dense = {
            part: {"kernel": matrix(f"{blk}ffn_{part}.weight", mlp[part]["kernel"].T).T}
            for part in ("gate", "up", "down")
        }
        norms = dict(attention_norm="attn_norm", mlp_norm="ffn_norm")
        scales = {
            ours: {"scale": vector(f"{blk}{name}.weight", p[ours]["scale"])}
            for ours, name in norms.items()
        }
        return {"attention": new, "mlp": dense, **scales}

    table = np.asarray(params["embed"]["embedding"])
    loaded: dict[str, Any] = {
        "embed": {"embedding": matrix("token_embd.weight", table)}
    }
    if not config.tie_embeddings:
        head = np.asarray(params["head"]["kernel"])
        loaded["head"] = {"kernel": matrix("output.weight", head.T).T}
    scale = np.asarray(params["final_norm"]["scale"])
    loaded["final_norm"] = {"scale": vector("output_norm.weight", scale)}
    loaded["layers"] = _stack([layer(i) for i in range(config.num_layers)])
    return loaded


def _layer(tree, i: int):
    if isinstance(tree, dict):
        return {name: _layer(branch, i) for name, branch in tree.items()}
    return np.asarray(tree[i])


def _stack(trees: list[Any]):
    if isinstance(trees[0], dict):
        return {name: _stack([tree[name] for tree in trees]) for name in trees[0]}
    return np.stack(trees)


def _encode(x: np.ndarray, kind: Kind) -> tuple[np.ndarray, Kind, np.ndarray]:
    """Rows as stored, in which type, and the numbers they stand for."""
    if kind == Kind.Q4_K and x.shape[-1] % 256 == 0:
        rows = _random_q4_k(x.shape)
    else:
        kind = Kind.F16 if x.shape[-1] % 32 or kind == Kind.Q4_K else kind
        rows = gguf.quants.quantize(x, kind)
    return rows, kind, gguf.quants.dequantize(rows, kind)


def _random_q4_k(shape: tuple[int, ...]) -> np.ndarray:
    """Blocks of 144 bytes: scale and minimum (float16), 12 of scales, 128 of numbers.

    The gguf package does not quantise to Q4_K.
    """
    rng = np.random.default_rng(shape[0])
    blocks = rng.integers(0, 256, (shape[0], shape[1] // 256, 144), dtype=np.uint8)
    blocks[..., :4] = np.array([2e-4, 1.5e-3], np.float16).view(np.uint8)
    return blocks.reshape(shape[0], -1)
