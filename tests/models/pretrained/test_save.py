"""What is written is what was read, and which family expresses a decoder."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from configs import base, from_scratch
from dcft_jax import sharding
from dcft_jax.models import (
    ModelConfig,
    abstract_params,
    load_pretrained,
    read_config,
    save_pretrained,
)
from dcft_jax.models.pretrained.to_hf import family_of, hf_config
from tests.models.pretrained.checkpoints import (
    FIXTURES,
    NAMES,
    TEXT,
    assert_same,
    load,
    random_params,
)

SIZES = dict(width=16, hidden=32, num_heads=4, num_kv_heads=2, head_dim=4)
# What a reader takes from config.json that the fixtures state too; not how many layers
# of a Qwen without windows would have none.
KEYS = (
    *("model_type", "architectures", "vocab_size", "hidden_size", "head_dim"),
    *("intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("num_key_value_heads", "rms_norm_eps", "max_position_embeddings", "mlp_bias"),
    *("tie_word_embeddings", "attention_bias", "hidden_activation", "layer_types"),
    *("query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"),
    *("sliding_window", "sliding_window_pattern", "use_sliding_window"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)


def make(**fields) -> ModelConfig:
    config = base.get_config()
    config.model.update({**SIZES, **fields})
    return ModelConfig.from_config(config.model, 96, config.mesh.rules)


def same_bits(x: np.ndarray, y: np.ndarray) -> bool:
    return (x.dtype, x.shape) == (y.dtype, y.shape) and x.tobytes() == y.tobytes()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:.*only the text part")
def test_tensors_come_out_as_they_went_in(tmp_path, name):
    p = load(name)
    save_pretrained(p.config, p.params, tmp_path, max_length=64)
    before = load_file(FIXTURES / name / "model.safetensors")
    # The part of a multimodal file is written as the text model that it is.
    before = {
        key.removeprefix("language_model."): tensor
        for key, tensor in before.items()
        if "vision_tower" not in key and "multi_modal_projector" not in key
    }
    after = load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(same_bits(before[key], after[key]) for key in before)
    again = load_pretrained(tmp_path, compute_dtype="float32")
    assert again.config == p.config
    assert_same(again.params, p.params)


@pytest.mark.parametrize("name", TEXT)
def test_settings_come_out_as_they_went_in(tmp_path, name):
    p = load(name)
    save_pretrained(p.config, p.params, tmp_path, max_length=64)
    before = json.loads((FIXTURES / name / "config.json").read_text())
    after = json.loads((tmp_path / "config.json").read_text())
    for key in KEYS:
        if key in before or key in after:
            assert before.get(key, "absent") == after.get(key, "absent"), key
    assert after["torch_dtype"] == before["dtype"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_parameters_come_back_bit_by_bit(tmp_path, dtype):
    config = make(qk_norm=True, param_dtype=dtype)
    params = random_params(config)
    save_pretrained(config, params, tmp_path, max_length=32)
    assert_same(load_pretrained(tmp_path).params, params)


def test_large_models_are_written_in_several_files(tmp_path):
    p = load("gemma2")
    save_pretrained(p.config, p.params, tmp_path, max_length=64, max_shard_size=12_000)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert len(files) > 3
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(
        x.nbytes for x in jax.tree.leaves(p.params)
    )
    for file in files:
        tensors = load_file(tmp_path / file)
        assert sum(x.nbytes for x in tensors.values()) <= 12_000
        assert {index["weight_map"][name] for name in tensors} == {file}
    assert_same(load_pretrained(tmp_path).params, p.params)


def test_parameters_of_a_mesh_are_written_too(tmp_path):
    mesh = sharding.make_mesh(dict(ability=2, data=2, model=2), jax.devices()[:8])
    p = load("qwen2", mesh=mesh, rules=base.get_config().mesh.rules)
    save_pretrained(p.config, p.params, tmp_path, max_length=64)
    after = load_file(tmp_path / "model.safetensors")
    before = load_file(FIXTURES / "qwen2" / "model.safetensors")
    assert all(same_bits(before[key], after[key]) for key in before)


def test_token_identifiers_are_those_given(tmp_path):
    p = load("llama2")
    extra = dict(eos_token_id=[3, 4], bos_token_id=2)
    save_pretrained(p.config, p.params, tmp_path, max_length=64, extra=extra)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert (raw["eos_token_id"], raw["bos_token_id"]) == ([3, 4], 2)
    assert raw["pad_token_id"] is None


GEMMA = dict(norm_offset=1.0, post_norms=True, scale_embeddings=True, activation="gelu")
LINEAR = dict(rope_scaling="linear", rope_scaling_factor=8.0)
FAMILY = [
    ("llama", dict()),
    ("llama", dict(LINEAR, query_scale=0.5)),  # head_dim ** -0.5
    ("qwen2", dict(qkv_bias=True)),
    ("qwen2", dict(qkv_bias=True, sliding_window=4, global_every=2)),
    ("qwen3", dict(qk_norm=True, head_dim=8)),
    ("qwen3", dict(qk_norm=True, sliding_window=8, local_rope_theta=10_000.0)),
    ("gemma2", dict(GEMMA, attention_softcap=50.0, sliding_window=4, global_every=2)),
    ("gemma3_text", dict(GEMMA, **LINEAR, qk_norm=True, query_scale=168**-0.5)),
    (
        "gemma3_text",
        dict(GEMMA, qk_norm=True, sliding_window=4, global_every=2, **LINEAR),
    ),
]


@pytest.mark.parametrize(("family", "fields"), FAMILY)
def test_the_family_follows_from_the_decoder(tmp_path, family, fields):
    config = make(**fields)
    assert family_of(config) == family
    raw = hf_config(config, max_length=64)
    assert raw["model_type"] == family
    (tmp_path / "config.json").write_text(json.dumps(raw))
    again = read_config(tmp_path, config.rules)
    assert again.is_local() == config.is_local()
    assert np.isclose(again.attention_scale, config.attention_scale, rtol=1e-15)
    same = ("query_scale", "compute_dtype", "global_every", "local_rope_theta")
    assert dataclasses.replace(
        again, **{field: getattr(config, field) for field in same}
    ) == dataclasses.replace(config)


REFUSED = [
    (
        dict(attention_softcap=30.0),
        r"'llama', needs model\.attention_softcap=0\.0, not",
    ),
    (dict(sliding_window=4), r"model\.sliding_window=0, not 4"),
    (dict(qk_norm=True, qkv_bias=True), r"model\.q\w+=False, not True"),
    (dict(post_norms=True), r"model\.post_norms=False, not True"),
    (dict(query_scale=0.3), r"model\.query_scale=0\.0, not 0\.3"),
    (dict(GEMMA, qk_norm=True, query_scale=0.3), r"model\.query_scale to be n \*\* -0"),
    (
        dict(num_heads=3, num_kv_heads=3),
        r"model\.width=16 to be a multiple of model\.n",
    ),
    (
        dict(LINEAR, qk_norm=True, sliding_window=4),
        r"'qwen3', needs model\.rope_scaling='none' next to windowed layers",
    ),
    (
        dict(qk_norm=True, sliding_window=4, local_rope_theta=100.0),
        r"'qwen3', needs model\.local_rope_theta=0\.0, not 100\.0",
    ),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_what_no_family_expresses_is_refused_by_field(tmp_path, fields, message):
    config = make(**fields)
    with pytest.raises(ValueError, match=message):
        save_pretrained(config, abstract_params(config), tmp_path, max_length=8)
    assert not list(tmp_path.iterdir())


def test_a_model_trained_from_nothing_can_be_exported():
    config = from_scratch.get_config()
    model = ModelConfig.from_config(config.model, 2048, config.mesh.rules)
    assert family_of(model) == "qwen3"


def test_parameters_of_something_else_are_refused(tmp_path):
    p = load("llama2")
    config = dataclasses.replace(p.config, hidden=16)
    with pytest.raises(
        ValueError, match=r"params\['layers/mlp/down/kernel'\] has shape"
    ):
        save_pretrained(config, p.params, tmp_path, max_length=8)
    params = {**p.params, "adapter": {"kernel": jnp.zeros(3)}}
    with pytest.raises(ValueError, match=r"params\['adapter/kernel'\].*needs None"):
        save_pretrained(p.config, params, tmp_path, max_length=8)


def test_nothing_is_overwritten(tmp_path):
    p = load("llama2")
    save_pretrained(p.config, p.params, tmp_path, max_length=8)
    with pytest.raises(
        FileExistsError, match=r"already holds \['model\.safetensors'\]"
    ):
        save_pretrained(p.config, p.params, tmp_path, max_length=8)
