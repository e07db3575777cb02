"""Exported folders and GGUF files in transformers; needs the extra `peers`."""

import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.models import ModelConfig, save_pretrained
from tests.models.pretrained.checkpoints import (
    NAMES,
    apply,
    expected,
    load,
    random_params,
)
from tests.models.pretrained.gguf_files import QUANTISED, write_gguf
from tests.models.pretrained.test_save import make

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def their_logits(folder, tokens_BL, positions_BL=None, **options) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, **options
    )
    tokens = torch.tensor(np.asarray(tokens_BL))
    inputs = dict(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    if positions_BL is not None:
        inputs["position_ids"] = torch.tensor(np.asarray(positions_BL))
    with torch.no_grad():
        return model.eval()(**inputs).logits.numpy()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:.*only the text part")
def test_an_exported_folder_gives_the_logits_of_the_original(tmp_path, name):
    p, wanted = load(name), expected(name)
    save_pretrained(p.config, p.params, tmp_path, max_length=64)
    for case in ("plain", "long", "far"):
        tokens_BL, positions_BL = wanted[f"{case}_tokens"], wanted[f"{case}_positions"]
        got = their_logits(tmp_path, tokens_BL, positions_BL)
        np.testing.assert_allclose(got, wanted[f"{case}_logits"], rtol=0, atol=1e-5)


OURS = {
    "quickstart": dict(qk_norm=True),
    "windows": dict(qk_norm=True, sliding_window=4, global_every=2, num_layers=4),
    "all windowed": dict(qkv_bias=True, sliding_window=4),
    "untied": dict(
        tie_embeddings=False, rope_scaling="linear", rope_scaling_factor=2.0
    ),
}


@pytest.mark.parametrize("case", OURS)
def test_decoders_of_our_own_give_the_same_logits_there(tmp_path, case):
    config: ModelConfig = make(compute_dtype="float32", **OURS[case])
    params = random_params(config)
    tokens_BL = np.random.default_rng(0).integers(0, 96, (2, 16))
    save_pretrained(config, params, tmp_path, max_length=64, max_shard_size=20_000)
    ours = apply(config, params, jnp.asarray(tokens_BL, jnp.int32))
    theirs = their_logits(tmp_path, tokens_BL)
    assert np.abs(theirs).max() > 0.5
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "kind"),
    [*(("llama", kind) for kind in QUANTISED), ("qwen2", "Q8_0"), ("qwen3", "Q8_0")],
)
def test_gguf_files_give_the_same_logits_there(tmp_path, family, kind):
    path = tmp_path / "model.gguf"
    config, params = write_gguf(path, family, kind)
    tokens_BL = np.random.default_rng(0).integers(0, 96, (1, 16))
    theirs = their_logits(tmp_path, tokens_BL, gguf_file=path.name)
    ours = apply(config, params, jnp.asarray(tokens_BL, jnp.int32))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
