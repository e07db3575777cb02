"""The command that lets a run answer, and how it finds the model of one."""

import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from dcft_jax.data import Example, encode_example
from dcft_jax.generate import main
from dcft_jax.models import generate
from dcft_jax.training import checkpoint
from dcft_jax.training.loop import train
from dcft_jax.training.run import Run, abstract_state, open_run
from dcft_jax.training.trained import find_step, load_trained
from tests.conftest import make_tiny_config

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, task_files: dict[str, Path]) -> Run:
    folder = tmp_path_factory.mktemp("generate")
    config = make_tiny_config(task_files, folder / "cache")
    run = open_run(config, folder / "run", QUIET, jax.devices()[:1])
    train(run)
    return run


def answer(run: Run, *arguments: str) -> None:
    main(["--workdir", str(run.workdir), "--max_new_tokens", "9", *arguments])


def expected_reply(run: Run, prompt: str, which: str = "latest", **options) -> str:
    trained = load_trained(run.workdir, which, jax.devices()[:1])
    tokens = trained.tokenizer.chat.encode_prompt([("user", prompt)]).tolist()
    options = dict(stop_ids=[trained.tokenizer.end_id], max_new_tokens=9) | options
    with jax.set_mesh(trained.mesh):
        (reply,) = generate(trained.model, trained.params, [tokens], **options)
    return trained.tokenizer.decode(reply).removeprefix(" ")


@pytest.mark.slow
def test_the_model_of_a_run_is_the_one_it_saved(run: Run):
    with (
        jax.set_mesh(run.mesh),
        checkpoint.open_checkpoints(run.workdir, 1, 100) as checkpoints,
    ):
        steps = [saved.step for saved in checkpoints.checkpoints]
        states = {
            s: checkpoint.load(checkpoints, s, abstract_state(run)) for s in steps
        }
    assert len(steps) > 1
    names = {"latest": max(steps)} | {str(step): step for step in steps}
    for name, step in names.items():
        trained = load_trained(run.workdir, name, jax.devices()[:1])
        assert trained.step == step
        for a, b in zip(
            jax.tree.leaves(trained.params),
            jax.tree.leaves(states[step].params),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_the_best_checkpoint_is_that_of_the_lowest_loss(run: Run):
    rows = map(json.loads, (run.workdir / "metrics.jsonl").read_text().splitlines())
    losses = {row["step"]: row for row in rows if "mix_val/loss/maths" in row}
    for ability in run.abilities:
        best = min(losses, key=lambda step: losses[step][f"mix_val/loss/{ability}"])
        assert load_trained(run.workdir, f"best:{ability}").step == best


@pytest.mark.slow
def test_a_prompt_is_what_precedes_the_reply_in_training(run: Run):
    tokenizer = run.data.tokenizer
    messages = [("system", "short"), ("user", "1 + 2"), ("assistant", "3")]
    tokens_L, mask_L = encode_example(Example(messages=messages, source=""), tokenizer)
    prompt = tokenizer.chat.encode_prompt(messages[:-1]).tolist()
    assert prompt == tokens_L[: len(prompt)].tolist()
    assert mask_L[len(prompt) :].all() and not mask_L[: len(prompt)].any()
    with pytest.raises(ValueError, match="last one user"):
        tokenizer.chat.encode_prompt(messages)
    with pytest.raises(ValueError, match="critic"):
        tokenizer.chat.encode_prompt([("critic", "x"), ("user", "y")])


@pytest.mark.slow
def test_one_prompt_is_answered_as_the_library_does(run: Run, capsys):
    answer(run, "12 + 30")
    out, err = capsys.readouterr()
    expected = expected_reply(run, "12 + 30")
    assert expected and out == expected + "\n"
    assert "cut at --max_new_tokens 9" in err, "six steps do not learn to stop"
    answer(run, "12 + 30", "--temperature", "1.5", "--seed", "4")
    sampled = expected_reply(run, "12 + 30", temperature=1.5, seed=4)
    assert capsys.readouterr().out == sampled + "\n" != expected + "\n"


@pytest.mark.slow
def test_prompts_from_arguments_file_and_stdin(run: Run, capsys, monkeypatch, tmp_path):
    prompts = ["1 + 2", "add 5 to a", "reverse: abc def"]
    answer(run, *prompts)
    by_arguments = capsys.readouterr().out
    for prompt in prompts:
        assert f"> {prompt}\n{expected_reply(run, prompt)}\n" in by_arguments
    file = tmp_path / "prompts.txt"
    file.write_text("\n\n".join(prompts) + "\n")
    answer(run, "--file", str(file))
    assert capsys.readouterr().out == by_arguments
    monkeypatch.setattr("sys.stdin", io.StringIO(file.read_text()))
    answer(run)
    assert capsys.readouterr().out == by_arguments


@pytest.mark.slow
def test_several_samples_differ(run: Run, capsys):
    options = ("--num_samples", "3", "--temperature", "1", "--max_new_tokens", "9")
    answer(run, "1 + 2", *options)
    replies = capsys.readouterr().out.removeprefix("> 1 + 2\n").split("\n\n")
    assert len({reply for reply in replies if reply}) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--checkpoint", "best:cooking"), "unknown ability; .* maths, code, general"),
        (("--checkpoint", "5"), r"5: is not kept; there are \[.*6\]"),
        (("--checkpoint", "newest"), "'newest': must be latest, best:<ability>"),
        (("--temperature", "-1"), r"temperature=-1.0 must be .* at least 0"),
        (("--top_p", "0"), r"top_p=0.0 must be in \(0, 1\]"),
        (("--num_samples", "2"), "--num_samples 2: with --temperature 0"),
        (("--max_new_tokens", "0"), "max_new_tokens=0 must be at least 1"),
        (("--file", "nowhere.txt"), "not both"),
    ],
)
def test_mistakes_end_with_a_message(run: Run, arguments, message):
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        answer(run, "1 + 2", *arguments)


@pytest.mark.slow
def test_no_prompt_is_a_mistake(run: Run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    with pytest.raises(SystemExit, match="there is no prompt"):
        answer(run)


def test_a_folder_that_is_no_run(tmp_path: Path):
    with pytest.raises(SystemExit, match=f"error: --workdir '{tmp_path}': is no run"):
        main(["--workdir", str(tmp_path), "1 + 2"])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_without_a_checkpoint(run: Run, tmp_path: Path):
    for name in ("config.json", "tokenizer.model"):
        (tmp_path / name).write_bytes((run.workdir / name).read_bytes())
    with pytest.raises(SystemExit, match="there is no checkpoint in it"):
        main(["--workdir", str(tmp_path), "1 + 2"])
    assert not (tmp_path / "checkpoints").exists()
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(SystemExit, match="there is no checkpoint in it"):
        main(["--workdir", str(tmp_path), "1 + 2"])


def test_no_checkpoint_at_an_evaluation():
    with pytest.raises(ValueError, match=r"no checkpoint .* steps \[2, 4\]"):
        find_step({2: None, 4: None}, "best:a", ["a", "b"])
