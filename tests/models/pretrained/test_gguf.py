"""GGUF files that the gguf package writes."""

import gguf
import jax
import numpy as np
import pytest

from dcft_jax import models
from dcft_jax.models import load_pretrained, read_config
from dcft_jax.models.pretrained.gguf_file import open_gguf
from tests.models.pretrained.checkpoints import apply, assert_same
from tests.models.pretrained.gguf_files import FAMILIES, QUANTISED, write_gguf


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", QUANTISED)
def test_every_number_is_in_its_place(tmp_path, family, kind):
    path = tmp_path / "model.gguf"
    config, params = write_gguf(path, family, kind)
    p = load_pretrained(path, rules=config.rules, compute_dtype="float32")
    assert p.config == config
    assert_same(p.params, params)


def test_settings_alone(tmp_path):
    config, _ = write_gguf(tmp_path / "a.gguf", "llama", "F16")
    got = read_config(tmp_path / "a.gguf", config.rules, compute_dtype="float32")
    assert got == config
    assert got.norm_eps == 1e-6, "not the nearest float32"


def test_parameters_do_not_depend_on_the_file_once_loaded(tmp_path):
    path = tmp_path / "model.gguf"
    _, params = write_gguf(path, "llama", "F32")
    p = load_pretrained(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert_same(p.params, params)


def _decoded() -> list[gguf.GGMLQuantizationType]:
    """Types that the package decodes."""
    kinds = []
    for kind, (_, size) in gguf.GGML_QUANT_SIZES.items():
        try:
            gguf.quants.dequantize(np.zeros((1, size), np.uint8), kind)
            kinds.append(kind)
        except NotImplementedError:
            pass  # what this list is about
    return kinds


def test_parts_of_all_types_equal_parts_of_the_whole(tmp_path):
    kinds, rng, path = _decoded(), np.random.default_rng(0), tmp_path / "model.gguf"
    assert len(kinds) > 20
    writer = gguf.GGUFWriter(path, "llama")
    for key in ("block_count", "embedding_length", "feed_forward_length"):
        writer.add_uint32(f"llama.{key}", 32)
    writer.add_head_count(4)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    stored = {}
    for kind in kinds:
        size = gguf.GGML_QUANT_SIZES[kind][1]
        rows = rng.integers(0, 60, (6, 4 * size), dtype=np.uint8)
        stored[kind.name] = rows
        writer.add_tensor(kind.name, rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    checkpoint, _ = open_gguf(path)
    for kind in kinds:
        whole = gguf.quants.dequantize(stored[kind.name], kind)
        assert checkpoint.tensors[kind.name].shape == whole.shape
        part = (slice(2, 5), slice(1, 3))
        np.testing.assert_array_equal(checkpoint.read(kind.name, part), whole[part])


FACTOR, ORIGINAL = 8.0, 8192


def llama3_divisors(theta: float, size: int) -> np.ndarray:
    """As the converter of llama.cpp writes them: by wavelength, one at a time."""
    divisors = []
    for i in range(0, size, 2):
        wavelength = 2 * np.pi * theta ** (i / size)
        if wavelength < ORIGINAL / 4.0:
            divisors.append(1.0)
        elif wavelength > ORIGINAL / 1.0:
            divisors.append(FACTOR)
        else:
            smooth = (ORIGINAL / wavelength - 1.0) / (4.0 - 1.0)
            divisors.append(1 / ((1 - smooth) / FACTOR + smooth))
    return np.array(divisors, np.float32)


def test_the_context_extension_of_llama_3_is_recognised(tmp_path):
    path, fields = tmp_path / "model.gguf", dict(head_dim=32, rope_theta=5e5)
    divisors = llama3_divisors(5e5, 32)
    assert (np.diff(divisors) > 0).any() and set(divisors) > {1.0, FACTOR}
    extra = {"rope_freqs.weight": divisors}
    config, params = write_gguf(path, "llama", "F32", extra, **fields)
    p = load_pretrained(path, rules=config.rules, compute_dtype="float32")
    assert (p.config.rope_scaling, p.config.rope_scaling_factor) == ("llama3", FACTOR)
    assert p.config.rope_original_length == ORIGINAL
    assert_same(p.params, params)
    # The frequencies of the decoder are those of the file.
    plain = models.layers.rope_frequencies(config, local=False)
    scaled = models.layers.rope_frequencies(p.config, local=False)
    np.testing.assert_allclose(scaled, plain / divisors, rtol=1e-6)
    divisors[-1] = 7.0
    write_gguf(path, "llama", "F32", {"rope_freqs.weight": divisors}, **fields)
    with pytest.raises(ValueError, match=r"'rope_freqs\.weight' is not the context"):
        load_pretrained(path)


def test_linear_scaling(tmp_path):
    path = tmp_path / "model.gguf"
    extra = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    config, params = write_gguf(path, "llama", "F32", extra)
    p = load_pretrained(path, compute_dtype="float32")
    assert (p.config.rope_scaling, p.config.rope_scaling_factor) == ("linear", 4.0)
    tokens_BL = np.arange(8, dtype=np.int32)[None]
    near = apply(config, params, tokens_BL, None, tokens_BL)
    far = apply(p.config, p.params, tokens_BL, None, 4 * tokens_BL)
    np.testing.assert_allclose(near, far, rtol=0, atol=1e-5)


REFUSED = [
    ("gemma2", {}, r"general\.architecture='gemma2'.*'llama'"),
    ("llama", {"rope.scaling.type": "yarn"}, r"rope\.scaling\.type='yarn'"),
    ("llama", {"rope.scale_linear": 4.0}, r"rope\.scale_linear=4\.0"),
    ("llama", {"expert_count": 8}, "expert_count=8"),
    ("llama", {"attention.sliding_window": 4096}, r"attention\.sliding_window=4096"),
    ("llama", {"odd.weight": np.zeros(3, np.float32)}, "unexpected tensor 'odd"),
    ("llama", {"odd": np.zeros(3, np.int32)}, "tensor 'odd' is I32, which the gguf"),
]


@pytest.mark.parametrize(("family", "extra", "message"), REFUSED)
def test_what_is_not_supported_is_refused_by_name(
    tmp_path, monkeypatch, family, extra, message
):
    path = tmp_path / "model.gguf"
    monkeypatch.setitem(FAMILIES, "gemma2", {})
    write_gguf(path, family, "F32", extra)
    before = len(jax.live_arrays())
    with pytest.raises(ValueError, match=message) as error:
        load_pretrained(path)
    assert str(path) in str(error.value)
    assert len(jax.live_arrays()) == before


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.99])
def test_a_file_that_is_cut_off(tmp_path, share):
    path = tmp_path / "model.gguf"
    write_gguf(path, "llama", "Q8_0")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    message = "no complete GGUF file" + (": tensor 'blk" if share >= 0.5 else "")
    with pytest.raises(ValueError, match=message) as error:
        load_pretrained(path)
    assert str(path) in str(error.value)
    path.write_bytes(b"not a model at all")
    with pytest.raises(ValueError, match="GGUF magic invalid"):
        load_pretrained(path)
