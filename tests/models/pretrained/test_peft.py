"""Adapters in the files of PEFT: round trips, names, and PEFT's own logits."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dcft_jax.models import LoRA, combine, split
from dcft_jax.models.lora import TARGETS
from dcft_jax.models.pretrained.peft import (
    CONFIG,
    WEIGHTS,
    load_adapters,
    save_adapters,
)
from tests.models.pretrained.checkpoints import (
    FIXTURES,
    apply,
    assert_same,
    expected,
    load,
    random_params,
)

CASES = [
    ("smollm2", LoRA(4, 8.0, TARGETS, False)),
    ("smollm2", LoRA(3, 5.5, ("out", "query"), True)),
    ("qwen2", LoRA(2, 4.0, ("value", "down"), False)),
    ("qwen3", LoRA(2, 4.0, TARGETS, True)),
    ("gemma2", LoRA(2, 2.0, TARGETS, False)),
    ("gemma3", LoRA(2, 2.0, TARGETS, False)),
]


pytestmark = pytest.mark.filterwarnings("ignore:.*only the text part is loaded")


def adapted(name: str, lora: LoRA):
    """The model with adapters, none of which is zero."""
    p = load(name)
    config = dataclasses.replace(p.config, lora=lora)
    adapters, _ = split(random_params(config))
    return config, combine(p.params, adapters), adapters


@pytest.mark.parametrize(("name", "lora"), CASES)
def test_round_trip(name: str, lora: LoRA, tmp_path: Path):
    config, params, adapters = adapted(name, lora)
    multimodal = name == "gemma3"
    save_adapters(config, params, tmp_path, base="org/x", multimodal=multimodal)
    plain = dataclasses.replace(config, lora=None)
    read, found = load_adapters(plain, tmp_path, multimodal)
    assert read == lora
    assert_same(found, adapters)


def test_the_layout_is_that_of_peft(tmp_path: Path):
    config, params, _ = adapted("smollm2", CASES[1][1])
    save_adapters(config, params, tmp_path, base="org/x", revision="abc")
    raw = json.loads((tmp_path / CONFIG).read_text())
    assert raw["base_model_name_or_path"] == "org/x" and raw["revision"] == "abc"
    assert (raw["r"], raw["lora_alpha"], raw["use_rslora"]) == (3, 5.5, True)
    assert raw["target_modules"] == ["o_proj", "q_proj"]
    arrays = load_file(tmp_path / WEIGHTS)
    prefix = "base_model.model.model.layers.{}.self_attn.{}.lora_{}.weight"
    names = {
        prefix.format(n, m, x)
        for n in range(config.num_layers)
        for m in ("q_proj", "o_proj")
        for x in "AB"
    }
    assert arrays.keys() == names
    inner = config.num_heads * config.head_dim
    assert arrays[prefix.format(0, "q_proj", "A")].shape == (3, config.width)
    assert arrays[prefix.format(0, "q_proj", "B")].shape == (inner, 3)
    assert arrays[prefix.format(0, "o_proj", "A")].shape == (3, inner)
    assert arrays[prefix.format(0, "o_proj", "B")].shape == (config.width, 3)


def test_what_is_wrong_is_named(tmp_path: Path):
    config, params, adapters = adapted("smollm2", CASES[1][1])
    plain = dataclasses.replace(config, lora=None)
    with pytest.raises(ValueError, match=r"config\.lora\.rank=0"):
        save_adapters(plain, params, tmp_path, base="x")
    with pytest.raises(ValueError, match=r"query/lora_a'\] has shape None"):
        save_adapters(config, split(adapters)[1], tmp_path, base="x")
    save_adapters(config, params, tmp_path, base="x")
    arrays = load_file(tmp_path / WEIGHTS)
    name = next(iter(arrays))
    for changed, message in (
        ({k: v for k, v in arrays.items() if k != name}, "is missing"),
        (arrays | {name: arrays[name].T.copy()}, r"is \(\d+, \d+\), expected"),
        (arrays | {"other": arrays[name]}, "unexpected tensors .*other"),
    ):
        save_file(changed, tmp_path / WEIGHTS)
        with pytest.raises(ValueError, match=message):
            load_adapters(plain, tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"12345678")
    with pytest.raises(ValueError, match=WEIGHTS):
        load_adapters(plain, tmp_path)
    for key, value in (("peft_type", "IA3"), ("target_modules", ["lm_head"])):
        raw = json.loads((tmp_path / CONFIG).read_text()) | {key: value}
        (tmp_path / "other.json").write_text(json.dumps(raw))
        (tmp_path / "wrong").mkdir(exist_ok=True)
        (tmp_path / "wrong" / CONFIG).write_text(json.dumps(raw))
        with pytest.raises(ValueError, match=key):
            load_adapters(plain, tmp_path / "wrong")


@pytest.mark.parametrize(("name", "lora"), CASES)
def test_peft_gives_the_same_logits(name: str, lora: LoRA, tmp_path: Path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    config, params, _ = adapted(name, lora)
    tokens_BL = expected("smollm2")["plain_tokens"]
    save_adapters(
        config,
        params,
        tmp_path,
        base=str(FIXTURES / name),
        multimodal=name == "gemma3",
    )
    ours_BLV = apply(config, params, jnp.asarray(tokens_BL))
    base = transformers.AutoModelForCausalLM.from_pretrained(
        FIXTURES / name, dtype=torch.float32, attn_implementation="eager"
    )
    model = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    with torch.no_grad():
        theirs_BLV = model(torch.tensor(tokens_BL, dtype=torch.long)).logits.numpy()
    np.testing.assert_allclose(ours_BLV, theirs_BLV, atol=1e-4)
    plain = dataclasses.replace(config, lora=None)
    unadapted_BLV = apply(plain, split(params)[1], jnp.asarray(tokens_BL))
    assert np.abs(ours_BLV - unadapted_BLV).max() > 0.1
