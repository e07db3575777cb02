"""Reading weights into shards, and files that are not what they should be."""

import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from safetensors.numpy import load_file, save_file

from configs import base
from dcft_jax import models, sharding
from dcft_jax.models import (
    load_params,
    load_pretrained,
    open_pretrained,
    read_config,
)
from dcft_jax.models.pretrained import layout, opening
from dcft_jax.models.pretrained.placing import place
from tests.models.pretrained.checkpoints import (
    FIXTURES,
    TEXT,
    apply,
    assert_same,
    copy,
    edit_config,
    edit_tensors,
    expected,
    load,
)

RULES = base.get_config().mesh.rules


def make_mesh():
    return sharding.make_mesh(dict(ability=2, data=2, model=2), jax.devices()[:8])


@pytest.mark.parametrize("name", TEXT)
def test_sharded_equals_unsharded(name):
    whole, mesh = load(name), make_mesh()
    parts = load(name, mesh=mesh, rules=RULES)
    assert_same(whole.params, parts.params)
    kernel = parts.params["layers"]["mlp"]["up"]["kernel"]
    shard = kernel.addressable_shards[0].data
    assert shard.size == kernel.size // 4, "split over data and model"


def test_loaded_and_drawn_parameters_have_the_same_types():
    mesh = make_mesh()
    p = load("qwen2", mesh=mesh, rules=RULES)
    with jax.set_mesh(mesh):
        drawn = jax.eval_shape(lambda: models.init(p.config, jax.random.key(0)))
    for x, y in zip(jax.tree.leaves(p.params), jax.tree.leaves(drawn), strict=True):
        spec = y.sharding.spec
        full = PartitionSpec(*spec, *(None,) * (y.ndim - len(spec)))
        assert (x.sharding.spec, x.dtype) == (full, y.dtype)


def test_a_program_on_a_mesh_takes_the_loaded_parameters():
    wanted, mesh = expected("gemma3_text"), make_mesh()
    p = load("gemma3_text", mesh=mesh, rules=RULES)
    with jax.set_mesh(mesh):
        got = apply(p.config, p.params, jax.numpy.asarray(wanted["plain_tokens"]))
    np.testing.assert_allclose(got, wanted["plain_logits"], rtol=0, atol=1e-4)


def test_every_shard_is_read_once_and_nothing_else():
    config = read_config(FIXTURES / "llama2", RULES)
    settings, checkpoint = opening.open_all(FIXTURES / "llama2")
    entries = opening.match(config, settings, checkpoint)
    reads: dict[str, list[np.ndarray]] = {}

    def read(name, part):
        count = np.zeros(checkpoint.tensors[name].shape, int)
        count[part] += 1
        reads.setdefault(name, []).append(count)
        return checkpoint.read(name, part)

    mesh = make_mesh()
    wanted = models.abstract_params(config, mesh)
    place(config, entries, checkpoint._replace(read=read), wanted)
    assert reads.keys() == checkpoint.tensors.keys()
    for name, counts in reads.items():
        # Together they are the tensor, no number twice, though 2 devices hold each.
        np.testing.assert_array_equal(sum(counts), 1)
        matrix = counts[0].ndim == 2
        parts = {int(count.sum()) for count in counts}
        assert parts == {math.prod(counts[0].shape) // (4 if matrix else 1)}, name


def test_layouts_invert_each_other():
    sizes = dict(D=6, H=4, C=2, R=1, P=2, G=2)
    rng = np.random.default_rng(0)
    for equation in ("HC,D->D,H,C", "D,HC->H,C,D", "HRP,D->D,H,PR", "GC->G,C"):
        stored = rng.normal(size=layout.file_shape(equation, sizes))
        shape = layout.leaf_shape(equation, sizes)
        whole = (slice(None),) * len(shape)
        leaf = layout.to_leaf(equation, sizes, stored, whole)
        assert leaf.shape == shape
        np.testing.assert_array_equal(layout.to_file(equation, sizes, leaf), stored)
    part = (slice(2, 4), slice(1, 3), slice(None))
    stored = rng.normal(size=(8, 6))
    index = layout.file_index("HC,D->D,H,C", sizes, part)
    assert index == (slice(2, 6), slice(2, 4))
    leaf = layout.to_leaf("HC,D->D,H,C", sizes, stored[index], part)
    expected_leaf = stored.reshape(4, 2, 6).transpose(2, 0, 1)[part]
    np.testing.assert_array_equal(leaf, expected_leaf)
    with pytest.raises(ValueError, match="'C' of 'HC,D->D,H,C' cannot be split"):
        split = (slice(None), slice(None), slice(0, 1))
        layout.file_index("HC,D->D,H,C", sizes, split)


def test_parameters_as_a_program_wants_them():
    config = read_config(FIXTURES / "qwen2", RULES, param_dtype="bfloat16")
    wanted = models.abstract_params(config, make_mesh())
    params = load_params(open_pretrained(FIXTURES / "qwen2"), config, wanted)
    jax.tree.map(lambda x, y: _assert_as_asked(x, y), params, wanted)
    single = load_params(open_pretrained(FIXTURES / "qwen2"), config)
    assert_same(single, params)


def _assert_as_asked(leaf, wanted):
    assert (leaf.shape, leaf.dtype) == (wanted.shape, wanted.dtype)
    assert leaf.sharding == wanted.sharding


def test_a_mesh_that_does_not_fit_is_refused():
    mesh = sharding.make_mesh(dict(ability=1, data=1, model=8), jax.devices()[:8])
    with pytest.raises(ValueError, match=r"model\.num_.*heads.*mesh\.model = 8"):
        load("llama3", mesh=mesh, rules=RULES)


def split_files(folder: Path) -> None:
    """One file into two with an index."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    where = {}
    for i, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{i}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))


def test_several_files_equal_one(tmp_path):
    folder = copy("llama3", tmp_path)
    split_files(folder)
    assert_same(load("llama3").params, load_pretrained(folder).params)


UP = "model.layers.1.mlp.up_proj.weight"


def missing(tensors):
    del tensors[UP]


def unexpected(tensors):
    tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(16, np.float32)


def misshapen(tensors):
    tensors[UP] = tensors[UP][:-1].copy()


def quantised(tensors):
    tensors[UP] = tensors[UP].astype(np.int8)


BROKEN = {
    "missing": (missing, rf"llama2: 1 of 30 tensors are missing: {UP}"),
    "unexpected": (unexpected, r"model\.safetensors: unexpected tensor .*q_proj\.bias"),
    "misshapen": (misshapen, rf"tensor '{UP}' has shape \(31, 16\).*\(32, 16\)"),
    "quantised": (quantised, rf"tensor '{UP}' has type I8"),
}


def assert_refused(folder: Path, message: str, error=ValueError) -> None:
    """Refused, and no array made on the way."""
    before = len(jax.live_arrays())
    with pytest.raises(error, match=message) as caught:
        load_pretrained(folder)
    assert folder.name in str(caught.value)
    assert len(jax.live_arrays()) == before


@pytest.mark.parametrize("case", BROKEN)
def test_wrong_tensors_are_named(tmp_path, case):
    edit, message = BROKEN[case]
    folder = copy("llama2", tmp_path)
    edit_tensors(folder, edit)
    assert_refused(folder, message)


@pytest.mark.parametrize("kept", [4, 500, 40_000])
def test_a_file_that_is_cut_off(tmp_path, kept):
    folder = copy("llama2", tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    within = "tensor 'model" if kept == 40_000 else "cut off within its header"
    assert_refused(folder, rf"model\.safetensors: {within}")


def test_a_file_of_something_else(tmp_path):
    folder = copy("llama2", tmp_path)
    (folder / "model.safetensors").write_bytes(b"\x04" + b"\0" * 7 + b"spam" * 9)
    assert_refused(folder, r"model\.safetensors: no safetensors header")


def test_a_wrong_family(tmp_path):
    folder = copy("llama2", tmp_path)
    edit_config(folder, model_type="gemma2", head_dim=4)
    assert_refused(folder, "tensors are missing: .*pre_feedforward_layernorm")
    edit_config(folder, model_type="gpt2")
    assert_refused(folder, "model_type='gpt2'")


def test_no_weights(tmp_path):
    folder = copy("llama2", tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert_refused(folder, "never from pickles", FileNotFoundError)


def test_an_index_that_is_wrong(tmp_path):
    folder = copy("llama2", tmp_path)
    split_files(folder)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][UP] = "model-00002-of-00002.safetensors"
    other = "model.embed_tokens.weight"
    index["weight_map"][other] = "model-00002-of-00002.safetensors"
    path.write_text(json.dumps(index))
    assert_refused(folder, r"index\.json: tensor .* is said to be in model-00002")
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert_refused(folder, r"model-00002-of-00002\.safetensors'\]", FileNotFoundError)
    path.write_text("{}")
    assert_refused(folder, r"index\.json: no index with a weight_map")


def test_a_repeated_head_must_be_the_embeddings(tmp_path):
    folder = copy("smollm2", tmp_path)
    table = "model.embed_tokens.weight"
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": t[table]}))
    assert_same(load_pretrained(folder).params, load("smollm2").params)
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": -t[table]}))
    assert_refused(folder, r"'lm_head\.weight' differs from 'model\.embed_tokens")
    edit_config(folder, tie_word_embeddings=False)
    assert "head" in load_pretrained(folder).params


def test_rotary_frequencies_of_old_files_are_ignored(tmp_path):
    folder = copy("llama2", tmp_path)
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit_tensors(folder, lambda t: t.update({name: np.ones(2, np.float32)}))
    assert_same(load_pretrained(folder).params, load("llama2").params)


def test_the_hash_tells_weights_apart(tmp_path):
    folder = copy("llama2", tmp_path)
    digest = load("llama2").content_hash
    assert load_pretrained(folder).content_hash == digest
    edit_tensors(folder, lambda t: t[UP].__setitem__((0, 0), 0.0))
    assert load_pretrained(folder).content_hash != digest
