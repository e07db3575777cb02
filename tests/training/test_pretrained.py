"""Runs that start from another model: all of it trained, or adapters on it."""

import dataclasses
import json
import shutil
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from configs import base
from dcft_jax.conflict import RESOLVERS, Engine, make_groups
from dcft_jax.data import train_tokenizer
from dcft_jax.evaluation.losses import make_eval_step, mean_loss
from dcft_jax.models import (
    STACKED,
    LoRA,
    ModelConfig,
    init,
    load_pretrained,
    merge,
    save_pretrained,
    split,
)
from dcft_jax.sharding import AXES, make_mesh, place
from dcft_jax.training.held_out import place_split, score
from dcft_jax.training.loop import train
from dcft_jax.training.run import Run, abstract_state, jit_init, open_run
from dcft_jax.training.state import init_mixture, init_state
from dcft_jax.training.step import make_train_step, slot_loss
from dcft_jax.training.trained import load_trained
from tests.conftest import make_tiny_config
from tests.training.compositions import compose
from tests.training.test_resume import (
    QUIET,
    assert_same_bits,
    cut_at,
    final_state,
    records,
)
from tests.training.test_step import ABILITY_S, K, assert_close, make_batch
from tests.training.test_step import model as tiny_decoder

pytestmark = pytest.mark.slow
ONE = jax.devices()[:1]


def texts(task_files: dict[str, Path]) -> list[str]:
    rows = [json.loads(x) for f in task_files.values() for x in f.open()]
    return [f" {row[key]}" for row in rows for key in ("prompt", "response")]


@pytest.fixture(scope="module")
def base_folder(
    tmp_path_factory: pytest.TempPathFactory, task_files: dict[str, Path]
) -> Path:
    """A small model as others publish theirs, with a tokenizer of this project."""
    folder = tmp_path_factory.mktemp("base") / "model"
    config = make_tiny_config(task_files, folder)
    # More rows than tokens, as many models have.
    model = ModelConfig.from_config(config.model, 328, config.mesh.rules)
    params = init(model, jax.random.key(7))
    save_pretrained(model, params, folder, max_length=64)
    train_tokenizer(texts(task_files), 320, folder / "tokenizer.model")
    return folder


def make_config(
    task_files: dict[str, Path], base_folder: Path, cache_dir: Path, **lora
) -> ConfigDict:
    config = make_tiny_config(task_files, cache_dir)
    config.pretrained.path = str(base_folder)
    config.lora.update(**lora)
    return config


@pytest.fixture(scope="module")
def adapted(
    tmp_path_factory: pytest.TempPathFactory,
    task_files: dict[str, Path],
    base_folder: Path,
) -> Run:
    """A finished run of adapters."""
    folder = tmp_path_factory.mktemp("adapted")
    config = make_config(task_files, base_folder, folder / "cache", rank=4)
    config.run.update(save_every=1, keep_checkpoints=100)
    config.conflict.engine = "lagged"
    config.optimizer.learning_rate = 3e-2
    run = open_run(config, folder / "run", QUIET, ONE)
    train(run)
    return run


def test_the_checkpoint_holds_adapters_and_says_whose(adapted: Run):
    state = final_state(adapted)
    names = {
        jax.tree_util.keystr(path[-1:], simple=True)
        for path, _ in jax.tree.leaves_with_path(state.params)
    }
    assert names == {"lora_a", "lora_b"}
    bytes_on_disk = sum(
        f.stat().st_size
        for f in (adapted.workdir / "checkpoints" / "6").rglob("*")
        if f.is_file()
    )
    frozen = sum(x.nbytes for x in jax.tree.leaves(adapted.frozen))
    assert bytes_on_disk < 3 * frozen  # Adam alone would make it three
    with ocp.training.Checkpointer(
        str(adapted.workdir.absolute() / "checkpoints")
    ) as saved:
        metadata = saved.metadata(saved.latest).custom_metadata
    assert adapted.base is not None
    assert metadata["base_hash"] == adapted.base.content_hash


def test_the_base_is_frozen_and_the_loss_goes_down(adapted: Run, base_folder: Path):
    base = load_pretrained(base_folder, param_dtype="float32")
    assert_same_bits(adapted.frozen, base.params)
    rows = records(adapted.workdir)
    losses = [row["mix_val/loss/maths"] for row in rows if "mix_val/loss/maths" in row]
    assert losses[-1] < losses[0] - 0.05


def test_a_run_starts_at_the_losses_of_its_base(
    adapted: Run, task_files: dict[str, Path], base_folder: Path, tmp_path: Path
):
    """Whether adapters are trained or everything."""
    config = make_config(task_files, base_folder, tmp_path / "cache")
    whole = open_run(config, tmp_path / "run", QUIET, ONE)
    assert whole.frozen == {} and whole.program.model.lora is None
    with jax.set_mesh(whole.mesh):
        state = jit_init(whole)
        losses = [
            mean_loss(one)[0]
            for one in score(
                whole, state.params, place_split(whole, "mix_val"), "mix_val"
            )
        ]
    assert_same_bits(state.params, load_pretrained(base_folder).params)
    first = records(adapted.workdir)[0]
    names = [f"mix_val/loss/{name}" for name in adapted.abilities]
    np.testing.assert_allclose(losses, [first[name] for name in names], rtol=1e-5)


def test_resume_is_exact(adapted: Run, tmp_path: Path):
    again = cut_at(adapted, 3, tmp_path / "run")
    train(again)
    assert_same_bits(final_state(again), final_state(adapted))
    assert records(again.workdir) == records(adapted.workdir)


def test_the_trained_model_is_base_and_adapters(adapted: Run):
    trained = load_trained(adapted.workdir, devices=ONE)
    assert_same_bits(trained.params, adapted.full(final_state(adapted).params))
    assert trained.model == adapted.program.model
    assert trained.tokenizer.content_hash == adapted.data.tokenizer.content_hash


def test_a_run_starts_from_another_run(
    adapted: Run, task_files: dict[str, Path], tmp_path: Path
):
    """From its merged adapters, also when it is loaded or opened once more."""
    config = make_config(task_files, adapted.workdir, tmp_path / "cache")
    run = open_run(config, tmp_path / "run", QUIET, ONE)
    assert run.base is not None
    assert run.data.tokenizer.vocab_size == adapted.data.tokenizer.vocab_size
    train(run)
    found, before = records(run.workdir)[0], records(adapted.workdir)[-1]
    for name in run.abilities:
        metric = f"test/loss/{name}"
        np.testing.assert_allclose(found[metric], before[metric], rtol=2e-3)
    again = load_trained(run.workdir, devices=ONE)
    assert_same_bits(again.params, final_state(run).params)
    assert again.base is not None and again.base.path == run.base.path
    assert len(list((tmp_path / "cache" / "runs").iterdir())) == 1


def test_a_run_without_checkpoint_is_no_base(
    adapted: Run, task_files: dict[str, Path], tmp_path: Path
):
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    config = make_config(task_files, tmp_path / "empty", tmp_path / "cache")
    with pytest.raises(ValueError, match=r"pretrained\.path = .*no checkpoint yet"):
        open_run(config, tmp_path / "run", QUIET, ONE)


def test_another_base_is_refused(adapted: Run, base_folder: Path, tmp_path: Path):
    workdir = tmp_path / "run"
    shutil.copytree(adapted.workdir, workdir)
    config = adapted.config
    other = tmp_path / "other"
    shutil.copytree(base_folder, other)
    weights = other / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    # The same name, other weights: an update of the folder.
    moved = tmp_path / "moved"
    base_folder.rename(moved)
    shutil.copytree(other, base_folder)
    try:
        with pytest.raises(ValueError, match=r"weights that config\.pretrained\.path"):
            open_run(config, workdir, QUIET, ONE)
        with pytest.raises(ValueError, match="it started from another model"):
            load_trained(workdir, devices=ONE)
    finally:
        shutil.rmtree(base_folder)
        moved.rename(base_folder)


def test_tiers_by_loss_of_the_base(
    task_files: dict[str, Path], base_folder: Path, tmp_path: Path
):
    config = make_config(task_files, base_folder, tmp_path / "cache", rank=4)
    config.abilities.maths.tiers.update(by="loss", count=2)
    run = open_run(config, tmp_path / "run", QUIET, ONE)
    (_, high), (low, _) = run.data.tiers["maths"].plan.ranges
    assert high <= low
    assert all(len(rows) for rows in run.data.tiers["maths"].train)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(
    task_files: dict[str, Path], base_folder: Path, tmp_path: Path
):
    config = make_config(task_files, base_folder, tmp_path / "cache", rank=4)
    train_tokenizer(texts(task_files), 340, tmp_path / "large.model")
    config.tokenizer.path = str(tmp_path / "large.model")
    with pytest.raises(ValueError, match=r"340 tokens .* 328 rows"):
        open_run(config, tmp_path / "run", QUIET, ONE)


def test_adapters_without_a_model_are_refused(task_files, tmp_path: Path):
    config = make_tiny_config(task_files, tmp_path)
    config.lora.rank = 4
    with pytest.raises(ValueError, match=r"lora\.rank = 4: .*pretrained\.path"):
        open_run(config, tmp_path / "run", QUIET, ONE)


@cache
def adapter_gradient(engine_name: str, mesh_sizes=None):
    """The change of the adapters in one SGD step with rate 1, away from B = 0."""
    lora = base.get_config().lora.to_dict() | {"rank": 3}
    config = dataclasses.replace(tiny_decoder(), lora=LoRA.from_config(lora))
    sizes = dict(zip(AXES, mesh_sizes or (1, 1, 1, 1), strict=True))
    mesh = make_mesh(sizes, jax.devices()[: int(np.prod(list(sizes.values())))])
    optimizer, composition = optax.sgd(1.0), compose((0.5, 0.2, 0.3), num_examples=5)
    with jax.set_mesh(mesh):
        adapters, frozen = split(init(config, jax.random.key(0)))
        adapters = jax.tree.map(lambda x: x + 0.05, adapters)
        groups = make_groups(adapters, "global", (STACKED,))
        engine = Engine(
            engine_name, RESOLVERS["upgrad"](), groups, K, stacked=(STACKED,)
        )
        state = init_state(adapters, optimizer, engine, init_mixture(composition, 5))
        step = make_train_step(
            partial(slot_loss, config), optimizer, composition, engine
        )
        batch = place(make_batch(ability_S=ABILITY_S), mesh, config.rules)
        after, metrics = jax.jit(step)(state, frozen, batch)
        change = jax.tree.map(lambda a, b: a - b, state.params, after.params)
        return jax.device_get((change, metrics.conflict.gram_KK))


@pytest.mark.parametrize("engine", ["accumulate", "two_pass"])
def test_engines_agree_on_adapters(engine: str):
    expected, gram_KK = adapter_gradient("materialize")
    change, other_KK = adapter_gradient(engine)
    assert_close(change, expected, 1e-5)
    np.testing.assert_allclose(other_KK, gram_KK, rtol=1e-4)


def test_adapters_on_a_mesh():
    expected, gram_KK = adapter_gradient("materialize")
    change, other_KK = adapter_gradient("materialize", (2, 2, 2, 1))
    assert_close(change, expected, 1e-5)
    np.testing.assert_allclose(other_KK, gram_KK, rtol=1e-4)


def test_merged_adapters_are_the_trained_model(adapted: Run):
    trained = load_trained(adapted.workdir, devices=ONE)
    assert trained.model.lora is not None
    plain = dataclasses.replace(trained.model, lora=None)
    merged = merge(trained.model.lora, trained.params)
    with jax.set_mesh(adapted.mesh):
        sets = place_split(adapted, "test")
        adapters = split(trained.params)[0]
        expected = [mean_loss(x)[0] for x in score(adapted, adapters, sets, "test")]
        whole = dataclasses.replace(adapted, frozen={})
        program = dataclasses.replace(
            adapted.program, model=plain, eval_step=make_eval_step(plain)
        )
        whole = dataclasses.replace(whole, program=program)
        got = [mean_loss(x)[0] for x in score(whole, merged, sets, "test")]
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert abstract_state(adapted).params.keys() == {STACKED}


@pytest.mark.parametrize("quantize", ["int8", "nf4"])
def test_adapters_on_quantised_weights(
    quantize: str, task_files: dict[str, Path], base_folder: Path, tmp_path: Path
):
    config = make_config(task_files, base_folder, tmp_path / "cache", rank=4)
    config.pretrained.quantize = quantize
    config.run.num_steps = 2
    run = open_run(config, tmp_path / "run", QUIET, ONE)
    kernels = sum(x.nbytes for x in jax.tree.leaves(run.frozen[STACKED]))
    exact = load_pretrained(base_folder, param_dtype="float32").params[STACKED]
    assert kernels < 0.5 * sum(x.nbytes for x in jax.tree.leaves(exact))
    before = jax.device_get(run.frozen)
    train(run)
    assert_same_bits(jax.device_get(run.frozen), before)
    trained = load_trained(run.workdir, devices=ONE)
    assert_same_bits(trained.params, run.full(final_state(run).params))


@pytest.mark.parametrize(
    ("group", "field", "value", "message"),
    [
        ("pretrained", "quantize", "int4", r"quantize = 'int4': must be one of none"),
        ("pretrained", "quantize", "int8", r"quantize = 'int8': .*set lora\.rank"),
        ("pretrained", "path", "nowhere", "no model 'nowhere'; give a folder"),
        ("lora", "targets", ("head",), r"lora\.targets=.*must be some of"),
    ],
)
def test_bad_fields_are_named(group, field, value, message, task_files, tmp_path: Path):
    config = make_tiny_config(task_files, tmp_path)
    config.lora.rank = 4 if group == "lora" else 0
    config.pretrained.path = str(tmp_path)
    config[group][field] = value
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_run(config, tmp_path / "run", QUIET, ONE)
