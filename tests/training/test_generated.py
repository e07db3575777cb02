"""Replies generated in the loop: what is measured, when, and what the mixture sees."""

import dataclasses
import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax import config as config_lib
from dcft_jax.evaluate import main
from dcft_jax.training import generated
from dcft_jax.training.generated import mix_val_accuracy, open_generation
from dcft_jax.training.loop import train
from dcft_jax.training.run import Run, jit_init, open_run
from tests.conftest import make_tiny_config
from tests.training.test_resume import QUIET, cut_at, records

pytestmark = pytest.mark.slow
NAMES = ("maths", "code", "general")


@pytest.fixture(scope="module")
def task_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Prompts of which a model learns some in a few steps: half have one reply."""
    folder = tmp_path_factory.mktemp("generated")
    files = {}
    for name in NAMES:
        files[name] = folder / f"{name}.jsonl"
        rows = [
            {"prompt": f"{name} {i}", "response": "yes" if i % 2 else f"no {i}"}
            for i in range(300)
        ]
        files[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return files


def make_config(task_files: dict[str, Path], cache_dir: Path) -> ConfigDict:
    config = make_tiny_config(task_files, cache_dir)
    config.run.update(num_steps=40, eval_every=10, save_every=10, keep_checkpoints=9)
    config.optimizer.update(learning_rate=1e-2)
    config.evaluation.update(
        generate_every=2, mix_val_prompts=24, test_prompts=100, max_new_tokens=12
    )
    config.mixture.accuracy = "generated"
    ours = config.mixture.options.mirror_descent
    ours.update(smoothing=0.0, warmup_updates=0)
    ours.signals = {"accuracy": 1.0}
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, task_files: dict[str, Path]) -> Run:
    folder = tmp_path_factory.mktemp("run")
    config = make_config(task_files, folder / "cache")
    run = open_run(config, folder / "run", QUIET, jax.devices()[:1])
    train(run)
    return run


def measured(run: Run, metric: str) -> dict[int, list[float]]:
    """step -> values of the abilities, where there are any."""
    keys = [f"{metric}/{name}" for name in NAMES]
    rows = [row for row in records(run.workdir) if keys[0] in row]
    return {row["step"]: [row[key] for key in keys] for row in rows}


def test_generated_replies_are_right_where_every_token_is_the_likeliest(run: Run):
    """Greedy decoding and one teacher-forced pass say the same."""
    for split in ("mix_val", "test"):
        generated = measured(run, f"{split}/accuracy")
        exact = measured(run, f"{split}/exact_match")
        assert 40 in generated
        for step, accuracy in generated.items():
            np.testing.assert_allclose(accuracy, exact[step], atol=1e-6)
    assert min(measured(run, "test/accuracy")[40]) > 0.2  # so 0 = 0 is not all


def test_it_is_measured_at_its_own_frequency(run: Run):
    # Random weights answer nothing; updates are at 0, 10, 20, 30 and 40.
    assert list(measured(run, "mix_val/accuracy")) == [20, 40]
    assert list(measured(run, "test/accuracy")) == [40]
    assert measured(run, "mix_val/num_generated")[20] == [24, 24, 24]


def test_the_mixture_moves_when_it_was_measured(run: Run):
    weights = measured(run, "mixture/weight")
    accuracy = measured(run, "mix_val/accuracy")
    assert weights[0] == weights[10]
    changed = np.array(weights[20]) - np.array(weights[10])
    assert np.abs(changed).max() > 0
    # The least accurate gains the most.
    assert np.argmax(changed) == np.argmin(accuracy[20])


def test_the_time_is_part_of_evaluation(run: Run):
    text = (run.workdir / "metrics.jsonl").read_text()
    rows = [
        row for row in map(json.loads, text.splitlines()) if "run/generate_s" in row
    ]
    assert [row["step"] for row in rows] == [20, 40]
    assert all(0 < row["run/generate_s"] < row["run/eval_s"] for row in rows)
    summary = json.loads((run.workdir / "summary.json").read_text())
    assert 0 < summary["generate_s"] < summary["eval_s"]
    for record in summary["abilities"].values():
        assert record["accuracy_before"] is None
        assert record["accuracy_after"] == pytest.approx(record["exact_match_after"])
        assert record["num_generated_after"] == record["test_examples"]


def test_resume_is_exact(run: Run, tmp_path: Path):
    again = cut_at(run, 10, tmp_path / "run")
    train(again)
    assert records(again.workdir) == records(run.workdir)


def test_a_broken_sandbox_costs_the_accuracy_and_not_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_, **__):
        raise RuntimeError("bwrap: no space left")

    monkeypatch.setattr(generated, "judge", broken)
    out = io.StringIO()
    noisy = dataclasses.replace(run, console=Console(file=out))
    generation = open_generation(noisy)
    with jax.set_mesh(run.mesh):
        params = jit_init(run).params
        accuracy_K, metrics = mix_val_accuracy(noisy, generation, params, 2)
    assert np.isnan(accuracy_K).all()
    assert metrics == {f"mix_val/num_generated/{name}": 0.0 for name in NAMES}
    assert out.getvalue().count("Not judged: bwrap: no space left") == 3


def test_prompts_rotate(task_files: dict[str, Path], tmp_path: Path):
    config = make_config(task_files, tmp_path / "cache")
    config.evaluation.update(mix_val_prompts=9, max_new_tokens=1)
    run = open_run(config, tmp_path / "run", QUIET, jax.devices()[:1])
    generation = open_generation(run)
    with jax.set_mesh(run.mesh):
        state = run.program.init()
        accuracy_K, metrics = mix_val_accuracy(run, generation, state.params, 2)
    assert accuracy_K.shape == (3,) and metrics["mix_val/num_generated/code"] == 9
    ids = [item.id for item in generation.mix_val[0]]
    assert len(set(ids)) == 24 and ids != sorted(ids, key=lambda i: int(i[6:]))


def test_the_command_finds_what_the_run_measured(run: Run, tmp_path: Path, capsys):
    to = tmp_path / "scores"
    main(
        f"--workdir {run.workdir} --to {to} --max_new_tokens 12 --batch_size 8".split()
    )
    scores = json.loads((to / "scores.json").read_text())
    assert scores["step"] == 40 and scores["suite"] == "test"
    found = {s["task"]: s for s in scores["scores"] if s["metric"] == "accuracy"}
    assert list(found) == list(NAMES)
    expected = measured(run, "test/accuracy")[40]
    for name, value in zip(NAMES, expected, strict=True):
        assert found[name]["value"] == pytest.approx(value)
        assert 0.3 < found[name]["chance"] < 0.7  # always "yes"
        lines = (to / f"{name}.jsonl").read_text().splitlines()
        right = [json.loads(line)["replies"][0]["correct"] for line in lines]
        assert np.mean(right) == pytest.approx(value)
    shown = capsys.readouterr().out
    assert "bits per byte" in shown and "maths: replies" in shown


def test_a_part_of_a_suite(run: Run, tmp_path: Path):
    arguments = f"--workdir {run.workdir} --tasks code --limit 5 --likelihoods"
    main([*arguments.split(), "--to", str(tmp_path)])
    (score,) = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert (score["task"], score["n"]) == ("code", 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--suite nothing",
            "--suite nothing: must be test, quickstart, offline, unseen, emerging",
        ),
        ("--tasks poetry", "--tasks poetry: suite test has maths, code, general"),
        ("--num_samples 0", "--num_samples 0: must be at least 1"),
        ("--k 2", r"--k 2: must be in \[1, --num_samples 1\]"),
        ("--num_samples 2", "num_samples=2: at temperature 0"),
        ("--limit -1", "--limit -1: must be at least 0"),
        ("--sandbox weak --execute_code", "needs consent"),
        ("--checkpoint 7", "--checkpoint 7: is not kept"),
    ],
)
def test_bad_arguments(run: Run, tmp_path: Path, arguments: str, message: str):
    with pytest.raises(SystemExit, match=message):
        main(["--workdir", str(run.workdir), "--to", str(tmp_path), *arguments.split()])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            dict(generate_every=-1),
            r"evaluation\.generate_every = -1: must be at least 0",
        ),
        (
            dict(mix_val_prompts=0),
            r"evaluation\.mix_val_prompts = 0: must be at least 1",
        ),
        (dict(sandbox="docker"), r"evaluation\.sandbox = 'docker': must be one of"),
        (dict(sandbox="weak"), r"evaluation\.sandbox = 'weak': .*allow_weak_sandbox"),
        (dict(generate_every=0), r"generate_every = 0: .*mixture\.accuracy"),
    ],
)
def test_bad_config(
    task_files: dict[str, Path], tmp_path: Path, fields: dict, message: str
):
    config = make_config(task_files, tmp_path)
    config.evaluation.update(fields)
    with pytest.raises(ValueError, match=message):
        config_lib.validate(config)
