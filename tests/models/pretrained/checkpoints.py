"""The committed models of every family, and small changes to them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from dcft_jax import models
from dcft_jax.models import ModelConfig, load_pretrained

FIXTURES = Path(__file__).parent.parent / "fixtures"
NAMES = sorted(path.name for path in FIXTURES.iterdir())
TEXT = [name for name in NAMES if name != "gemma3"]  # gemma3 is multimodal
apply = jax.jit(models.apply, static_argnums=0)


def load(name: str, **options) -> models.Pretrained:
    return load_pretrained(FIXTURES / name, compute_dtype="float32", **options)


def expected(name: str) -> dict[str, np.ndarray]:
    """Tokens, positions and transformers' logits of each case."""
    return dict(np.load(FIXTURES / name / "expected.npz"))


def copy(name: str, folder: Path) -> Path:
    shutil.copytree(FIXTURES / name, folder / name)
    return folder / name


def edit_config(folder: Path, **keys: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def edit_tensors(folder: Path, edit: Callable[[dict[str, np.ndarray]], Any]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def random_params(config: ModelConfig, seed: int = 0) -> dict[str, Any]:
    """Parameters with no special values, so that no term drops out."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        start = 1.0 - config.norm_offset if path[-1].key == "scale" else 0.0
        value = start + 0.3 * rng.standard_normal(leaf.shape)
        return jax.numpy.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, models.abstract_params(config))


def assert_same(a: Any, b: Any) -> None:
    """The same tree, bit by bit."""
    jax.tree.map(_assert_same_bits, a, b)


def _assert_same_bits(x, y) -> None:
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
