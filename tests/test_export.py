"""The command that writes a run for other programs, and what they make of it."""

import dataclasses
import errno
import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from rich.console import Console

from dcft_jax.data import load_chat_tokenizer
from dcft_jax.export import main
from dcft_jax.models import (
    generate,
    load_pretrained,
    merge,
    read_config,
    save_pretrained,
    split,
)
from dcft_jax.models.pretrained import peft as peft_files
from dcft_jax.models.pretrained import save
from dcft_jax.reporting import load_history
from dcft_jax.training import export_run
from dcft_jax.training.divergence import CONVERSATIONS
from dcft_jax.training.loop import train
from dcft_jax.training.model_card import mean_weights
from dcft_jax.training.run import open_run
from dcft_jax.training.trained import load_trained
from tests.conftest import make_tiny_config
from tests.data.chat_families import BY_NAME, write_family
from tests.models.pretrained.checkpoints import (
    FIXTURES,
    apply,
    assert_same,
    random_params,
)

QUIET = Console(quiet=True)
PROMPTS = ["12 + 30", "add 5 to a", "naïve <b> 日本"]


class Case(NamedTuple):
    workdir: Path
    base: Path | None
    folder: Path  # of the export


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory, task_files) -> Case:
    folder = tmp_path_factory.mktemp("scratch")
    config = make_tiny_config(task_files, folder / "cache")
    train(open_run(config, folder / "run", QUIET, jax.devices()[:1]))
    case = Case(folder / "run", None, folder / "out" / "model")
    export(case)
    return case


def make_base(folder: Path) -> Path:
    """A random model in bfloat16 with a tokenizer and a chat template."""
    write_family(BY_NAME["smollm2"], folder)
    vocab_size = load_chat_tokenizer(folder).vocab_size
    config = read_config(FIXTURES / "smollm2")
    config = dataclasses.replace(config, vocab_size=vocab_size)
    assert config.param_dtype == "bfloat16"
    save_pretrained(config, random_params(config), folder, max_length=64)
    return folder


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory, task_files) -> Case:
    folder = tmp_path_factory.mktemp("lora")
    config = make_tiny_config(task_files, folder / "cache")
    config.pretrained.path = str(make_base(folder / "base"))
    config.run.update(num_steps=2)
    config.lora.update(rank=3, alpha=12.0, rank_stabilised=True)
    config.lora.targets = ("query", "value", "out", "down")
    config.optimizer.learning_rate = 0.05
    config.data.seq_len = 128
    train(open_run(config, folder / "run", QUIET, jax.devices()[:1]))
    return Case(folder / "run", folder / "base", folder / "merged")


@pytest.fixture(scope="module")
def merged(lora: Case) -> Case:
    export(lora, "--max_shard_size", "8KB")
    return lora


@pytest.fixture(scope="module")
def adapters(lora: Case) -> Case:
    case = lora._replace(folder=lora.folder.parent / "adapters")
    export(case, "--adapters")
    return case


def export(case: Case, *options: str) -> None:
    main(["--workdir", str(case.workdir), "--to", str(case.folder), *options])


@pytest.mark.slow
def test_a_model_from_scratch_comes_back(scratch: Case):
    files = {path.name for path in scratch.folder.iterdir()}
    assert files == {
        *("model.safetensors", "config.json", "generation_config.json", "README.md"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    assert list(scratch.folder.parent.iterdir()) == [scratch.folder]
    assert len({path.stat().st_mode for path in scratch.folder.iterdir()}) == 1
    trained = load_trained(scratch.workdir, devices=jax.devices()[:1])
    p = load_pretrained(scratch.folder)
    assert_same(p.params, trained.params)
    assert p.config.param_dtype == "float32"
    for conversation in CONVERSATIONS:
        for a, b in zip(
            trained.tokenizer.chat.encode(conversation),
            p.tokenizer.chat.encode(conversation),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
    tokenizer = trained.tokenizer
    raw = json.loads((scratch.folder / "config.json").read_text())
    assert raw["max_position_embeddings"] == 64
    for settings in (
        raw,
        json.loads((scratch.folder / "generation_config.json").read_text()),
    ):
        assert settings["eos_token_id"] == list(tokenizer.chat.stop_ids)
        assert settings["pad_token_id"] == tokenizer.pad_id
        assert settings["bos_token_id"] == tokenizer.bos_id


@pytest.mark.slow
def test_adapters_are_merged_into_the_dtype_of_the_base(merged: Case):
    trained = load_trained(merged.workdir, devices=jax.devices()[:1])
    p = load_pretrained(merged.folder)
    assert p.config.param_dtype == "bfloat16"
    assert trained.model.lora is not None
    in_full = merge(trained.model.lora, trained.params, "float32")
    assert_same(p.params, jax.tree.map(lambda leaf: leaf.astype("bfloat16"), in_full))
    base = load_pretrained(merged.base or "")
    kernels = [x.params["layers"]["mlp"]["down"]["kernel"] for x in (p, base)]
    assert (np.asarray(kernels[0]) != np.asarray(kernels[1])).mean() > 0.5
    assert p.tokenizer == base.tokenizer
    assert len(list(merged.folder.glob("model-*.safetensors"))) > 1


@pytest.mark.slow
def test_adapters_come_back(adapters: Case):
    trained = load_trained(adapters.workdir, devices=jax.devices()[:1])
    plain = dataclasses.replace(trained.model, lora=None)
    settings, params = peft_files.load_adapters(plain, adapters.folder)
    assert settings == trained.model.lora
    assert_same(params, split(trained.params)[0])
    raw = json.loads((adapters.folder / peft_files.CONFIG).read_text())
    assert raw["base_model_name_or_path"] == str(adapters.base)
    assert not list(adapters.folder.glob("model*"))


@pytest.mark.slow
def test_another_checkpoint_in_another_dtype(scratch: Case, tmp_path: Path, capsys):
    case = scratch._replace(folder=tmp_path / "x")
    export(case, "--checkpoint", "4", "--dtype", "float16")
    assert "step 4 in float16; read back, KL" in capsys.readouterr().out
    p = load_pretrained(case.folder)
    kept = load_trained(case.workdir, "4", jax.devices()[:1]).params
    assert_same(p.params, jax.tree.map(lambda leaf: leaf.astype("float16"), kept))
    card = (case.folder / "README.md").read_text()
    assert "step 4 of 6, in float16" in card and "of step 4, was not tested" in card
    assert "--checkpoint 4 --dtype float16" in card


@pytest.mark.slow
def test_the_card_says_what_the_run_was(scratch: Case, task_files):
    card = (scratch.folder / "README.md").read_text()
    summary = json.loads((scratch.workdir / "summary.json").read_text())
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "\nlicense:" not in card and "**Licence:** not stated" in card
    assert f"`{summary['config_hash']}`" in card
    assert f"jax {summary['versions']['jax']}" in card
    assert "rule `mirror_descent` from the prior `uniform`" in card
    assert f"--workdir {scratch.workdir}" in card
    final = summary["weights_path"][-1][1]
    mean = mean_weights(load_history(scratch.workdir), 6)
    steps = dict(summary["weights_path"])
    by_hand = np.mean([steps[max(s for s in steps if s <= t)] for t in range(6)], 0)
    np.testing.assert_allclose(mean, by_hand, rtol=1e-6)
    for k, (ability, record) in enumerate(summary["abilities"].items()):
        lines = task_files[ability].read_text().splitlines()
        train = len({json.loads(line)["prompt"] for line in lines}) - 2 * 24
        assert f"| {ability} | rows | jsonl | {train} | 24 | 24 |" in card
        assert f"| {ability} | {final[k]:.3f} | {mean[k]:.3f} |" in card
        before, after, error = (
            record[f"test_loss_{x}"] for x in ("before", "after", "stderr_after")
        )
        assert f"| {ability} | {before:.3f} ± " in card
        assert f" {after:.3f} ± {error:.3f} |" in card
    assert "Packed rows to train on: " in card


@pytest.mark.slow
def test_the_card_of_adapters_names_the_base(adapters: Case):
    card = (adapters.folder / "README.md").read_text()
    assert f'base_model: "{adapters.base}"\nbase_model_relation: adapter\n' in card
    assert "library_name: peft" in card
    assert "Rank 3, alpha 12, scaled by alpha / sqrt(r), on query, value, out" in card


def flip(path: Path, at: int = -40) -> None:
    """Turns the bits of 20 bytes of the data of a file."""
    content = bytearray(path.read_bytes())
    content[at : at + 20] = bytes(255 - byte for byte in content[at : at + 20])
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("bits", ["compared", "not compared"])
@pytest.mark.parametrize("kind", ["model", "adapters"])
def test_a_damaged_file_is_found(
    bits: str, kind: str, scratch: Case, lora: Case, tmp_path: Path, monkeypatch
):
    module, case, options = save, scratch, ()
    if kind == "adapters":
        module, case, options = peft_files, lora, ("--adapters",)
    write, message = module.save_file, "read back other than written"

    def write_and_damage(arrays, path, **rest) -> None:
        write(arrays, path, **rest)
        flip(Path(path))

    monkeypatch.setattr(module, "save_file", write_and_damage)
    if bits == "not compared":  # so it is up to the predictions
        monkeypatch.setattr(export_run, "require_same", lambda *_: None)
        message = "predictions differ from those of the run"
    case = case._replace(folder=tmp_path / "x")
    with pytest.raises(SystemExit, match=f"error: {case.folder}: .*{message}"):
        export(case, *options)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_wrong_scale_is_found(lora: Case, tmp_path: Path, monkeypatch):
    read = peft_files._read_settings
    monkeypatch.setattr(
        peft_files,
        "_read_settings",
        lambda path: dataclasses.replace(read(path), rank_stabilised=False),
    )
    with pytest.raises(SystemExit, match="predictions differ"):
        export(lora._replace(folder=tmp_path / "x"), "--adapters")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--adapters",), r"--adapters: the run trained all parameters"),
        (("--dtype", "int4"), r"--dtype 'int4': must be one of"),
        (("--max_shard_size", "5 GB"), "--max_shard_size '5 GB': must be like 5GB"),
        (("--max_shard_size", "0"), "--max_shard_size 0: must be at least 1"),
        (("--checkpoint", "5"), "--checkpoint 5: is not kept"),
    ],
)
def test_mistakes_end_with_a_message(
    scratch: Case, options, message: str, tmp_path: Path
):
    with pytest.raises(SystemExit, match=f"error: {message}"):
        export(scratch._replace(folder=tmp_path / "x"), *options)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_is_there_is_left_alone(scratch: Case, tmp_path: Path):
    case = scratch._replace(folder=tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit, match=f"error: --to '{tmp_path}': is there already"):
        export(case)
    with pytest.raises(SystemExit, match="is there already"):
        export(scratch._replace(folder=tmp_path / "notes.txt"))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    export(scratch._replace(folder=tmp_path / "empty"))
    assert (tmp_path / "empty" / "config.json").is_file()


@pytest.mark.slow
def test_a_full_disk(scratch: Case, tmp_path: Path, monkeypatch):
    class Full:
        free = 2**20

    monkeypatch.setattr(export_run.shutil, "disk_usage", lambda _: Full)
    with pytest.raises(
        SystemExit, match=r"0\.00 GiB are free, but 0\.06 GiB are needed"
    ):
        export(scratch._replace(folder=tmp_path / "x"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_export_that_is_cut_off_leaves_nothing(
    scratch: Case, tmp_path: Path, monkeypatch
):
    def half(model, params, folder: Path, **options) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export_run, "save_pretrained", half)
    with pytest.raises(SystemExit, match=r"error: .*No space left on device"):
        export(scratch._replace(folder=tmp_path / "x"))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_run(tmp_path: Path):
    with pytest.raises(SystemExit, match=f"error: --workdir '{tmp_path}': is no run"):
        main(["--workdir", str(tmp_path), "--to", str(tmp_path / "x")])
    assert not list(tmp_path.iterdir())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SystemExit, match="there is no checkpoint in it"):
        main(["--workdir", str(tmp_path), "--to", str(tmp_path / "x")])


def theirs(folder: Path, base: Path | None = None):
    """Model and tokenizer as transformers, or PEFT on a base, load them."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    auto = transformers.AutoModelForCausalLM
    model = auto.from_pretrained(base or folder, dtype=torch.float32)
    if base is not None:
        peft = pytest.importorskip("peft")
        model = peft.PeftModel.from_pretrained(model, folder)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def ours(kind: str, case: Case):
    """Model, parameters and tokenizer: of the run, or as they were merged."""
    trained = load_trained(case.workdir, devices=jax.devices()[:1])
    model, params = trained.model, trained.params
    if kind == "merged":  # rounded to bfloat16
        model, params = (p := load_pretrained(case.folder)).config, p.params
    model = dataclasses.replace(model, compute_dtype="float32")
    return model, jax.tree.map(np.asarray, params), trained.tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scratch", "merged", "adapters"])
def test_transformers_answers_as_the_run_does(kind: str, request):
    torch = pytest.importorskip("torch")
    case: Case = request.getfixturevalue(kind)
    model, params, tokenizer = ours(kind, case)
    base = case.base if kind == "adapters" else None
    their_model, their_tokenizer = theirs(case.folder, base)
    stop_ids = tokenizer.chat.stop_ids
    prompts = [tokenizer.chat.encode_prompt([("user", p)]).tolist() for p in PROMPTS]
    replies = generate(model, params, prompts, max_new_tokens=12, stop_ids=stop_ids)
    tokens_BL = np.zeros((len(prompts), max(map(len, prompts))), np.int32)
    for row, prompt in enumerate(prompts):
        tokens_BL[row, : len(prompt)] = prompt
    logits_BLV = apply(model, params, tokens_BL)
    for row, (text, prompt) in enumerate(zip(PROMPTS, prompts, strict=True)):
        given = their_tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True
        )
        assert given["input_ids"] == prompt
        ids = torch.tensor([prompt])
        options = dict(attention_mask=torch.ones_like(ids), do_sample=False)
        with torch.no_grad():
            reply = their_model.generate(ids, max_new_tokens=12, **options)[0]
            logits_LV = their_model(ids).logits[0].numpy()
        assert reply[len(prompt) :].tolist() == replies[row]
        ours_LV = logits_BLV[row, : len(prompt)]
        np.testing.assert_allclose(logits_LV, ours_LV, atol=1e-4, rtol=1e-5)
    different = len({token for reply in replies for token in reply})
    assert different > (1 if kind == "scratch" else 10), "proves little"
