"""config.json -> ModelConfig: what it means, and what is refused."""

import json

import pytest

from dcft_jax.models import read_config
from dcft_jax.models.pretrained.from_hf import config_fields
from tests.models.pretrained.checkpoints import FIXTURES, copy, edit_config

LLAMA = dict(
    model_type="llama", hidden_size=64, num_attention_heads=4, num_hidden_layers=4
)
QWEN3 = dict(LLAMA, model_type="qwen3")
GEMMA2 = dict(LLAMA, model_type="gemma2")
GEMMA3 = dict(LLAMA, model_type="gemma3_text")
LLAMA3_ROPE = dict(
    rope_type="llama3",
    factor=32.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
)


def fields(raw, **keys):
    return config_fields({**raw, **keys}, "config.json")


def test_settings_of_every_kind_are_read():
    got = read_config(FIXTURES / "gemma2")
    assert got.query_scale == 12**-0.5
    assert (got.attention_softcap, got.logits_softcap) == (2.0, 3.0)
    assert got.is_local() == (True, False, True)
    assert got.norm_offset == 1.0 and got.post_norms and got.scale_embeddings
    got = read_config(FIXTURES / "gemma3_text")
    assert got.is_local() == (True, True, False, True)
    assert (got.rope_theta, got.local_rope_theta) == (1e6, 1e4)
    assert (got.rope_scaling, got.rope_scaling_factor) == ("linear", 8.0)
    got = read_config(FIXTURES / "llama3")
    assert (got.rope_scaling, got.rope_original_length) == ("llama3", 32)
    assert read_config(FIXTURES / "qwen2").qkv_bias


def test_the_text_part_of_a_multimodal_model_is_the_text_model():
    text, whole = (
        read_config(FIXTURES / "gemma3_text"),
        read_config(FIXTURES / "gemma3"),
    )
    assert whole.norm_eps == 1e-5  # the one thing the fixtures differ in
    assert {**vars(whole), "norm_eps": text.norm_eps} == vars(text)


def test_what_a_multimodal_gemma_3_leaves_out_takes_the_defaults_of_its_family():
    text = dict(
        hidden_size=2560,
        intermediate_size=10_240,
        model_type="gemma3_text",
        num_hidden_layers=34,
        rope_scaling=dict(factor=8.0, rope_type="linear"),
        sliding_window=1024,
    )
    got = config_fields(dict(model_type="gemma3", text_config=text), "config.json")
    assert (got["num_heads"], got["num_kv_heads"], got["head_dim"]) == (8, 4, 256)
    assert (got["vocab_size"], got["global_every"]) == (262_208, 6)
    assert (got["rope_theta"], got["local_rope_theta"]) == (1e6, 1e4)
    assert got["tie_embeddings"]


def test_old_and_new_keys_of_positions_mean_the_same():
    old = fields(LLAMA, rope_theta=500_000.0, rope_scaling=LLAMA3_ROPE)
    new = fields(LLAMA, rope_parameters={**LLAMA3_ROPE, "rope_theta": 500_000.0})
    older = fields(LLAMA, rope_scaling=dict(type="linear", factor=2.0))
    assert old == new
    assert (old["rope_theta"], old["rope_scaling_factor"]) == (500_000.0, 32.0)
    assert (older["rope_scaling"], older["rope_scaling_factor"]) == ("linear", 2.0)
    linear = dict(rope_type="linear", factor=8.0)
    old = fields(GEMMA3, rope_theta=5e5, rope_local_base_freq=5e3, rope_scaling=linear)
    nested = dict(
        full_attention={**linear, "rope_theta": 5e5},
        sliding_attention=dict(rope_type="default", rope_theta=5e3),
    )
    assert old == fields(GEMMA3, rope_parameters=nested)
    assert old["local_rope_theta"] == 5e3


def test_layer_patterns():
    assert fields(GEMMA2)["global_every"] == 2
    assert fields(GEMMA3, sliding_window_pattern=2)["global_every"] == 2
    assert fields(GEMMA3)["global_every"] == 0  # the sixth of four layers is global
    whole = fields(GEMMA3, layer_types=["full_attention"] * 4)
    assert whole["sliding_window"] == 0
    assert fields(QWEN3)["sliding_window"] == 0
    # Keys that the code of the family does not read.
    assert (
        fields(LLAMA, use_sliding_window=True, sliding_window=8)["sliding_window"] == 0
    )
    assert fields(GEMMA2, sliding_window_pattern=3)["global_every"] == 2
    windowed = dict(use_sliding_window=True, sliding_window=8, max_window_layers=0)
    assert fields(QWEN3, **windowed)["sliding_window"] == 8


def test_explicit_null_is_not_the_default():
    assert fields(GEMMA2)["logits_softcap"] == 30.0
    assert fields(GEMMA2, final_logit_softcapping=None)["logits_softcap"] == 0.0
    assert fields(GEMMA2, query_pre_attn_scalar=144)["query_scale"] == 1 / 12


YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32_768)
WINDOWED = dict(use_sliding_window=True, max_window_layers=0)
REFUSED = [
    (LLAMA, dict(model_type="mixtral"), r"model_type='mixtral' .*'llama'.*'gemma3'"),
    (LLAMA, dict(model_type="qwen3_moe"), "model_type='qwen3_moe'"),
    (LLAMA, dict(mlp_bias=True), "mlp_bias=True"),
    (LLAMA, dict(attention_bias=True), "attention_bias=True"),
    (QWEN3, dict(attention_bias=True), "attention_bias=True"),
    (LLAMA, dict(hidden_act="relu"), r"hidden_act='relu' .*'silu'"),
    (LLAMA, dict(hidden_act="gelu"), r"hidden_act='gelu' .*'gelu_pytorch_tanh'"),
    (GEMMA2, dict(hidden_activation="gelu"), "hidden_activation='gelu'"),
    (GEMMA2, dict(use_bidirectional_attention=True), "use_bidirectional_attention"),
    (GEMMA3, dict(attn_logit_softcapping=50.0), "attn_logit_softcapping=50.0"),
    (LLAMA, dict(rope_scaling=YARN), r"rope_scaling\.rope_type='yarn' .*'llama3'"),
    (LLAMA, dict(rope_parameters=YARN), r"rope_parameters\.rope_type='yarn'"),
    (LLAMA, dict(rope_scaling=dict(type="dynamic", factor=2.0)), "'dynamic'"),
    (LLAMA, dict(rope_scaling=dict(type="linear")), r"with \['factor'\]"),
    (LLAMA, dict(rope_parameters=dict(partial_rotary_factor=0.5)), "partial_rotary"),
    (LLAMA, dict(partial_rotary_factor=0.5), "partial_rotary_factor=0.5"),
    (LLAMA, dict(rope_parameters=dict(mrope_section=[1])), r"without \['mrope_sect"),
    (LLAMA, dict(quantization_config=dict(quant_method="awq")), "quantization_config"),
    (QWEN3, dict(WINDOWED, max_window_layers=2), r"layer_types=.*every n-th layer"),
    (QWEN3, dict(layer_types=["linear_attention"] * 4), "layer_types="),
    (QWEN3, dict(layer_types=["full_attention"]), "layer_types="),
    (QWEN3, dict(layer_types=["sliding_attention"] * 4, sliding_window=None), "a len"),
    (
        QWEN3,
        dict(WINDOWED, rope_scaling=dict(rope_type="linear", factor=2.0)),
        "no scaling together with sliding windows",
    ),
    (GEMMA3, dict(rope_parameters=dict(rope_theta=1e4)), "entries 'full_attention'"),
    (
        GEMMA3,
        dict(rope_parameters=dict(sliding_attention=LLAMA3_ROPE)),
        r"rope_parameters\.sliding_attention=.*rope_type 'default'",
    ),
]


@pytest.mark.parametrize(("raw", "keys", "message"), REFUSED)
def test_what_the_decoder_lacks_is_refused_by_name(raw, keys, message):
    with pytest.raises(ValueError, match=message) as error:
        fields(raw, **keys)
    assert "config.json" in str(error.value)


def test_files_that_are_no_settings(tmp_path):
    folder = copy("llama2", tmp_path)
    edit_config(folder, dtype="float8_e4m3fn")
    with pytest.raises(ValueError, match=r"dtype='float8_e4m3fn'.*pass param_dtype"):
        read_config(folder)
    assert read_config(folder, param_dtype="bfloat16").param_dtype == "bfloat16"
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: no JSON"):
        read_config(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no config\.json"):
        read_config(folder)


def test_reading_settings_needs_no_weights(tmp_path):
    folder = copy("qwen3", tmp_path)
    (folder / "model.safetensors").unlink()
    raw = json.loads((folder / "config.json").read_text())
    assert read_config(folder).num_layers == raw["num_hidden_layers"]
