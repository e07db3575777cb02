"""HuggingFace `config.json` -> fields of ModelConfig."""

from collections.abc import Mapping
from typing import Any, NoReturn

from dcft_jax.models.pretrained.families import DEFAULTS, FAMILIES, FIXED

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    # Three names of the tanh approximation; "gelu" is the exact one, which we lack.
    "gelu_pytorch_tanh": "gelu",
    "gelu_python_tanh": "gelu",
    "gelu_new": "gelu",
}
# Values that leave the function of a model as the decoder has it. Qwen2 ignores
# attention_bias: its queries, keys and values always have one, its outputs never.
_NEUTRAL = dict(
    attention_bias=(None, False),
    mlp_bias=(None, False),
    use_bidirectional_attention=(None, False),
    partial_rotary_factor=(None, 1.0),
    quantization_config=(None,),
)
_ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
# Settings of "llama3", without effect otherwise.
_LLAMA3 = dict(
    rope_low_frequency_factor=1.0,
    rope_high_frequency_factor=4.0,
    rope_original_length=8192,
)
_ROPE_OPTIONAL = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
_ROPE_OPTIONAL += ("original_max_position_embeddings",)


def config_fields(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What ModelConfig needs to be this model; `rules`, `remat` and dtypes excepted.

    Keys that the file leaves out mean what they mean in `transformers`. Multimodal
    Gemma 3 gives the fields of its text part.

    Args:
      raw: the content of config.json.
      where: its name, for messages.

    Raises:
      ValueError: for a family, or a value of a key, that the decoder cannot express.
    """
    raw = text_part(raw, where)
    family = raw["model_type"]
    values = {**DEFAULTS[family], **raw}
    for key, allowed in _NEUTRAL.items():
        ignored = family == "qwen2" and key == "attention_bias"
        if values.get(key) not in allowed and not ignored:
            _refuse(where, key, values[key], f"one of {allowed}")
    heads = values["num_attention_heads"]
    fields = dict(
        FIXED[family],
        vocab_size=values["vocab_size"],
        num_layers=values["num_hidden_layers"],
        width=values["hidden_size"],
        hidden=values["intermediate_size"],
        num_heads=heads,
        num_kv_heads=values["num_key_value_heads"] or heads,
        head_dim=values["head_dim"] or values["hidden_size"] // heads,
        activation=_activation(values, where),
        norm_eps=float(values["rms_norm_eps"]),
        tie_embeddings=bool(values["tie_word_embeddings"]),
    )
    fields |= _gemma(values, fields["head_dim"], where) if "gemma" in family else {}
    fields |= _windows(values, where)
    fields |= _gemma3_rope(values, where) if family == "gemma3_text" else {}
    if family != "gemma3_text":
        fields |= _one_rope(values, bool(fields["sliding_window"]), where)
    return fields


def text_part(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The config of the language model: all of it, or a part if multimodal.

    Raises:
      ValueError: if the model is of no supported family.
    """
    family = raw.get("model_type")
    if family == "gemma3":
        tied = raw.get("tie_word_embeddings", True)
        text = {**raw.get("text_config", {}), "model_type": "gemma3_text"}
        dtypes = {key: raw[key] for key in ("dtype", "torch_dtype") if key in raw}
        return {**dtypes, **text, "tie_word_embeddings": tied}
    if family not in FAMILIES:
        _refuse(where, "model_type", family, f"one of {(*FAMILIES, 'gemma3')}")
    return dict(raw)


def _activation(values: Mapping[str, Any], where: str) -> str:
    # Gemma files also carry a `hidden_act`, which its code does not read.
    key = "hidden_activation" if "hidden_activation" in values else "hidden_act"
    if values[key] not in ACTIVATIONS:
        _refuse(where, key, values[key], f"one of {tuple(ACTIVATIONS)}")
    return ACTIVATIONS[values[key]]


def _gemma(values: Mapping[str, Any], head_dim: int, where: str) -> dict[str, Any]:
    scalar = values["query_pre_attn_scalar"]
    cap = values["attn_logit_softcapping"]
    fields = dict(
        query_scale=0.0 if scalar == head_dim else scalar**-0.5,
        logits_softcap=float(values["final_logit_softcapping"] or 0.0),
    )
    if values["model_type"] == "gemma2":
        return fields | dict(attention_softcap=float(cap or 0.0))
    if cap is not None:
        # Part of the config, but the modeling code of Gemma 3 does not read it.
        _refuse(where, "attn_logit_softcapping", cap, "null")
    return fields


def _windows(values: Mapping[str, Any], where: str) -> dict[str, int]:
    """Which layers are windowed, as a window and the distance of global layers."""
    if values["model_type"] == "llama":
        return dict(sliding_window=0, global_every=0)
    kinds = values.get("layer_types") or _default_layer_types(values)
    number, window = values["num_hidden_layers"], values.get("sliding_window")
    local = [kind == "sliding_attention" for kind in kinds]
    if len(kinds) != number or set(kinds) - {"sliding_attention", "full_attention"}:
        supported = f"{number} times 'sliding_attention' or 'full_attention'"
        _refuse(where, "layer_types", kinds, supported)
    if not any(local):
        return dict(sliding_window=0, global_every=0)
    if not window:
        _refuse(where, "sliding_window", window, "a length: some layers need it")
    every = 0 if all(local) else local.index(False) + 1
    if every and local != [(i + 1) % every != 0 for i in range(number)]:
        supported = "every n-th layer 'full_attention', all others not"
        _refuse(where, "layer_types", kinds, supported)
    return dict(sliding_window=window, global_every=every)


def _default_layer_types(values: Mapping[str, Any]) -> list[str]:
    family, number = values["model_type"], values["num_hidden_layers"]
    if family.startswith("gemma"):
        every = 2 if family == "gemma2" else values["sliding_window_pattern"]
        local = [(i + 1) % every != 0 for i in range(number)]
    else:
        windowed = values.get("use_sliding_window") and values["sliding_window"]
        first = values["max_window_layers"] if windowed else number
        local = [i >= first for i in range(number)]
    return ["sliding_attention" if x else "full_attention" for x in local]


def _one_rope(values: Mapping[str, Any], windowed: bool, where: str) -> dict[str, Any]:
    key = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    rope = values.get(key) or {}
    fields = _rope(rope, key, values["rope_theta"], values, where)
    if windowed and fields["rope_scaling"] != "none":
        # The code of these families would scale the positions of all layers.
        supported = "no scaling together with sliding windows"
        _refuse(where, key, rope, supported)
    return fields


def _gemma3_rope(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Of global layers; windowed ones have a base of their own."""
    nested = values.get("rope_parameters") or {}
    unknown = sorted(set(nested) - {"full_attention", "sliding_attention"})
    if unknown:
        supported = "entries 'full_attention' and 'sliding_attention'"
        _refuse(where, "rope_parameters", nested, supported)
    scaling = values.get("rope_scaling") or {}
    full = {**(nested.get("full_attention") or {}), **scaling}
    key = "rope_scaling" if scaling else "rope_parameters.full_attention"
    fields = _rope(full, key, values["rope_theta"], values, where)
    local = nested.get("sliding_attention") or {}
    key, theta = "rope_parameters.sliding_attention", values["rope_local_base_freq"]
    local_fields = _rope(local, key, theta, values, where)
    if local_fields["rope_scaling"] != "none":
        _refuse(where, key, local, "rope_type 'default'")
    return fields | dict(local_rope_theta=local_fields["rope_theta"])


def _rope(
    rope: Mapping[str, Any],
    key: str,
    theta: float,
    values: Mapping[str, Any],
    where: str,
) -> dict[str, Any]:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in _ROPE_KEYS:
        _refuse(where, f"{key}.rope_type", kind, f"one of {tuple(_ROPE_KEYS)}")
    needed = _ROPE_KEYS[kind]
    missing = [name for name in needed if rope.get(name) is None]
    if missing:
        _refuse(where, key, rope, f"with {missing}, which {kind!r} needs")
    if rope.get("partial_rotary_factor") not in (None, 1.0):
        _refuse(where, key, rope, "partial_rotary_factor 1.0")
    unknown = [name for name in rope if name not in needed + _ROPE_OPTIONAL]
    if unknown:
        _refuse(where, key, rope, f"without {unknown}")
    fields = dict(
        rope_theta=float(rope.get("rope_theta") or theta),
        rope_scaling="none" if kind == "default" else kind,
        rope_scaling_factor=float(rope["factor"]) if needed else 1.0,
        **_LLAMA3,
    )
    if kind == "llama3":
        original = rope.get("original_max_position_embeddings")
        fields |= dict(
            rope_low_frequency_factor=float(rope["low_freq_factor"]),
            rope_high_frequency_factor=float(rope["high_freq_factor"]),
            rope_original_length=int(original or values["max_position_embeddings"]),
        )
    return fields


def _refuse(where: str, key: str, value: Any, supported: str) -> NoReturn:
    raise ValueError(f"{where}: {key}={value!r} is not supported; needs {supported}")
