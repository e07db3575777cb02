"""Loaded models give the logits that transformers gives."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.pretrained.checkpoints import NAMES, TEXT, apply, expected, load

CASES = ("plain", "long", "far")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:.*only the text part")
def test_logits_equal_those_of_transformers(name):
    p, wanted = load(name, param_dtype="float32"), expected(name)
    for case in CASES:
        tokens_BL = wanted[f"{case}_tokens"]
        got = apply(p.config, p.params, tokens_BL, None, wanted[f"{case}_positions"])
        np.testing.assert_allclose(got, wanted[f"{case}_logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_expected_logits_depend_on_positions(name):
    """So a wrong rotary embedding cannot pass unseen."""
    wanted = expected(name)
    assert np.abs(wanted["plain_logits"] - wanted["far_logits"]).max() > 0.1


@pytest.mark.parametrize("name", TEXT)
def test_packed_rows_equal_single_rows(name):
    p, wanted = load(name, param_dtype="float32"), expected(name)
    first, second = wanted["plain_tokens"][:, :10]
    row = jnp.concatenate([first, second, jnp.zeros(4, jnp.int32)])[None]
    segments = jnp.array([[1] * 10 + [2] * 10 + [0] * 4])
    positions = jnp.array([[*range(10), *range(10), 0, 0, 0, 0]])
    got = apply(p.config, p.params, row, segments, positions)
    # The model is causal: the first tokens of the longer rows that transformers saw.
    for part, wanted_LV in zip(
        (got[0, :10], got[0, 10:20]), wanted["plain_logits"][:, :10], strict=True
    ):
        np.testing.assert_allclose(part, wanted_LV, rtol=0, atol=1e-4)
    assert np.isfinite(got).all()


def test_gemma3_skips_its_vision_part_and_says_so():
    with pytest.warns(UserWarning, match="only the text part is loaded; 34 tensors"):
        load("gemma3")


def test_parameters_keep_the_dtype_of_the_file_unless_told():
    kernel = load("smollm2").params["layers"]["mlp"]["up"]["kernel"]
    assert kernel.dtype == jnp.bfloat16
    wide = load("smollm2", param_dtype="float32").params["layers"]["mlp"]["up"][
        "kernel"
    ]
    np.testing.assert_array_equal(np.asarray(kernel, np.float32), wide)
    narrow = load("qwen2", param_dtype="bfloat16").params["embed"]["embedding"]
    exact = load("qwen2").params["embed"]["embedding"]
    np.testing.assert_array_equal(narrow, jnp.asarray(exact, jnp.bfloat16))
