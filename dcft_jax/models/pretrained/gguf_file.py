"""GGUF files of the Llama family: settings from the metadata, dequantised tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES

from dcft_jax.models.pretrained.checkpoint import Checkpoint, Stored
from dcft_jax.models.pretrained.families import DEFAULTS

ARCHITECTURES = ("llama", "qwen2", "qwen3")
# The context extension of Llama 3 is stored as the divisor of every frequency.
ROPE_FREQS = "rope_freqs.weight"
LLAMA3 = dict(
    low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
)


class _Reader(gguf.GGUFReader):
    """Says which tensor a file that is cut off lacks."""

    def _build_tensors(self, start_offs, fields) -> None:
        for field in fields:
            dims, kind, offset = field.parts[3:6]
            block, size = GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind[0])]
            end = start_offs + int(offset[0]) + int(np.prod(dims)) // block * size
            if end > len(self.data):
                raise ValueError(
                    f"tensor {field.name!r} ends at byte {end}, the file at "
                    f"{len(self.data)}; it is cut off, download it again"
                )
        super()._build_tensors(start_offs, fields)


def open_gguf(path: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """Reads metadata and tensor table.

    Every quantisation that the `gguf` package decodes is read; its rows are decoded as
    they are wanted, to float32.

    Returns:
      the checkpoint, and its settings as the keys of a HuggingFace config.json.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is cut off or no GGUF file, of an architecture that is not
        supported, or has a setting the decoder cannot express.
    """
    try:
        reader = _Reader(path)
    except (ValueError, IndexError, KeyError) as error:
        raise ValueError(f"{path}: no complete GGUF file: {error}") from error
    stored = {tensor.name: tensor for tensor in reader.tensors}

    def read(name: str, part: tuple[slice, ...]) -> np.ndarray:
        tensor, rows = stored[name], part[:-1]
        # Blocks lie along the last axis: rows can be decoded on their own.
        decoded = gguf.quants.dequantize(tensor.data[rows], tensor.tensor_type)
        return decoded[..., part[-1]]

    tensors = {
        name: Stored(path, tuple(int(size) for size in reversed(tensor.shape)))
        for name, tensor in stored.items()
    }
    _check_types(path, stored)
    checkpoint = Checkpoint(path, tensors, read, {path: reader.data_offset})
    return checkpoint, _settings(reader, checkpoint)


def _check_types(path: Path, stored: dict[str, Any]) -> None:
    for name, tensor in stored.items():
        _, size = GGML_QUANT_SIZES[tensor.tensor_type]
        try:
            gguf.quants.dequantize(np.zeros((1, size), np.uint8), tensor.tensor_type)
        except NotImplementedError as error:
            raise ValueError(
                f"{path}: tensor {name!r} is {tensor.tensor_type.name}, which the gguf "
                "package does not decode"
            ) from error


def _settings(reader: gguf.GGUFReader, checkpoint: Checkpoint) -> dict[str, Any]:
    path = checkpoint.path
    metadata = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("tokenizer.")
    }
    family = metadata.get("general.architecture")
    if family not in ARCHITECTURES:
        _refuse(path, "general.architecture", family, f"one of {ARCHITECTURES}")
    get = _getter(metadata, family, path)
    table = checkpoint.tensors.get("token_embd.weight")
    if table is None:
        raise ValueError(f"{path}: there is no tensor 'token_embd.weight'")
    heads, width = get("attention.head_count"), get("embedding_length")
    size = get("attention.key_length", width // heads)
    theta = _decimal(get("rope.freq_base", DEFAULTS[family]["rope_theta"]))
    _require(get, path, "attention.value_length", size)
    _require(get, path, "rope.dimension_count", size)
    _require(get, path, "rope.scale_linear", 1.0)  # of old files
    _require(get, path, "expert_count", 0)
    _require(get, path, "attention.sliding_window", 0)
    return dict(
        model_type=family,
        vocab_size=table.shape[0],
        hidden_size=width,
        intermediate_size=get("feed_forward_length"),
        num_hidden_layers=get("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=get("attention.head_count_kv", heads),
        head_dim=size,
        rms_norm_eps=_decimal(get("attention.layer_norm_rms_epsilon")),
        max_position_embeddings=get("context_length"),
        rope_theta=theta,
        rope_scaling=_rope_scaling(get, checkpoint, size, theta),
        tie_word_embeddings="output.weight" not in checkpoint.tensors,
    )


def _getter(metadata: dict[str, Any], family: str, path: Path) -> Callable[..., Any]:
    """Reads the number or word of a key of the family; all layers have the same."""

    def get(key: str, default: Any = None) -> Any:
        value = metadata.get(f"{family}.{key}", default)
        if value is None:
            raise ValueError(f"{path}: there is no {family}.{key} in the metadata")
        if isinstance(value, list):
            _refuse(path, f"{family}.{key}", value, "one value for all layers")
        return value

    return get


def _require(get: Callable[..., Any], path: Path, key: str, wanted: Any) -> None:
    value = get(key, wanted)
    if value != wanted:
        _refuse(path, key, value, repr(wanted))


def _rope_scaling(
    get: Callable[..., Any], checkpoint: Checkpoint, head_dim: int, theta: float
) -> dict[str, Any] | None:
    kind = get("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        _refuse(checkpoint.path, "rope.scaling.type", kind, "'none' or 'linear'")
    if kind == "linear":
        factor = get("rope.scaling.factor")
        return dict(rope_type="linear", factor=_decimal(factor))
    if ROPE_FREQS not in checkpoint.tensors:
        return None
    stored = checkpoint.read(ROPE_FREQS, (slice(None),))
    factor = _decimal(stored.max())
    expected = _llama3_divisors(head_dim, theta, factor)
    if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=1e-3):
        raise ValueError(
            f"{checkpoint.path}: tensor {ROPE_FREQS!r} is not the context extension of "
            f"Llama 3 by {factor}, the only one supported: {stored}"
        )
    return None if factor == 1.0 else dict(LLAMA3, rope_type="llama3", factor=factor)


def _llama3_divisors(head_dim: int, theta: float, factor: float) -> np.ndarray:
    """Of the frequency of each pair of channels (arXiv:2407.21783); layers.py."""
    frequencies = theta ** -(np.arange(0, head_dim, 2) / head_dim)
    turns = LLAMA3["original_max_position_embeddings"] * frequencies / (2 * np.pi)
    low, high = LLAMA3["low_freq_factor"], LLAMA3["high_freq_factor"]
    keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return 1.0 / (keep + (1.0 - keep) / factor)


def _decimal(value: float) -> float:
    """The shortest decimal of a float32, as the metadata holds: 1e-5, not 0.9999e-5."""
    return float(str(np.float32(value)))


def _refuse(path: Path, key: str, value: Any, supported: str) -> NoReturn:
    raise ValueError(f"{path}: {key}={value!r} is not supported; needs {supported}")
