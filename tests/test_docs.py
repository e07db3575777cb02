"""Code in the documentation runs."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import quickstart
from dcft_jax import config as config_lib
from dcft_jax.data import prepare
from dcft_jax.distributed import OPTIONS
from dcft_jax.export import make_parser as export_parser
from dcft_jax.generate import make_parser as generate_parser
from dcft_jax.mixture import NEEDS, RULES, unmeasured
from dcft_jax.mixture.from_config import make_rule

ROOT = Path(__file__).parent.parent


def code_blocks(path: str, language: str = "python") -> list[str]:
    text = (ROOT / path).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def block_with(path: str, words: str) -> str:
    """The one block of Python that holds these words."""
    (code,) = [block for block in code_blocks(path) if words in block]
    return code


def test_the_loop_of_the_conflict_page_runs_and_resolves(capsys: pytest.CaptureFixture):
    (code,) = code_blocks("docs/conflict.md")
    assert len([line for line in code.splitlines() if line]) <= 20
    names: dict = {}
    exec(code, names)
    assert "stationary" in capsys.readouterr().out
    # Both pull at x[0], from both sides, and nothing else is left to gain.
    assert float(names["info"].pareto_gap) < 0.05
    x = names["params"]["x"]
    assert -2 < x[0] < 1
    assert abs(x[1] - 0.5) < 0.05 and abs(x[2] - 0.5) < 0.05


def test_the_loop_of_the_mixture_page_feeds_what_lags_and_not_the_noise():
    names: dict = {}
    exec(block_with("docs/mixture.md", "allocate("), names)
    easy_T, slow_T, noise_T = np.array(names["path"]).T
    np.testing.assert_allclose(easy_T + slow_T + noise_T, 1, atol=1e-5)
    # "The slow ability gets up to 0.55 while it lags, the noise 0.2"
    assert 0.5 < slow_T.max() < 0.6 and slow_T.argmax() > 3
    assert 0.17 < noise_T.min() < 0.23 and noise_T.max() < 0.34
    # "and all return to a third as the gap closes"
    assert slow_T[-1] < 0.45 and abs(easy_T[-1] - 1 / 3) < 0.05
    assert abs(names["x_K"][0] - 1) < 0.1 and names["x_K"][1] > 0.6


def test_an_ability_is_a_file_and_four_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (row,) = [json.loads(text) for text in code_blocks("docs/mixture.md", "json")]
    rows = [row | {"prompt": f"{n}. {row['prompt']}"} for n in range(300)]
    names: dict = {}
    exec(block_with("docs/mixture.md", "abilities.capitals"), names)
    config = names["get_config"]()
    path = Path(config.abilities.capitals.sources.rows.path)
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config_lib.validate(config)
    assert len(config.abilities) == len(quickstart.get_config().abilities) + 1
    for name in quickstart.get_config().abilities:  # theirs take long to generate
        del config.abilities[name]
    config.tokenizer.vocab_size = 300
    config.pretrained.path = ""  # relative to the folder of the project
    data = prepare(config)
    held_out = {split: data.rows["capitals"][split] for split in ("mix_val", "test")}
    assert [split.num_examples for split in held_out.values()] == [48, 48]
    assert all(split.num_scored == 48 for split in held_out.values())
    assert data.rows["capitals"]["train"].num_examples == 300 - 96


def test_the_line_that_replays_a_run_is_the_config_of_one(tmp_path: Path):
    config = quickstart.get_config().lock()
    exec(block_with("docs/mixture.md", 'rule="replay"'), {"config": config})
    config.mixture.options.replay.run = str(tmp_path)
    summary = {
        "abilities": {name: {} for name in config.abilities},
        "num_steps": config.run.num_steps,
        "weights_path": [[0, [0.2, 0.3, 0.5]]],
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    config_lib.validate(config)
    (tmp_path / "summary.json").unlink()
    with pytest.raises(FileNotFoundError, match="finished run"):
        config_lib.validate(config)


def test_the_rule_of_the_mixture_page_is_one():
    names: dict = {}
    exec(block_with("docs/mixture.md", "MixtureRule("), names)
    rule, prior_K = names["progress_softmax"](), jnp.array([0.5, 0.2, 0.3])
    update, state = jax.jit(rule.update), rule.init(prior_K)
    nothing = update(unmeasured(3), state)
    np.testing.assert_allclose(rule.weights(nothing), prior_K, atol=1e-6)
    feedback = dataclasses.replace(
        unmeasured(3),
        observed_K=jnp.ones(3, bool),
        progress_K=jnp.array([0.1, jnp.nan, 0.3]),
    )
    ratio_K = rule.weights(update(feedback, state)) / prior_K
    assert ratio_K[2] > ratio_K[0] > ratio_K[1]


def test_the_mixture_page_lists_every_rule_with_its_needs():
    text = (ROOT / "docs/mixture.md").read_text()
    text = text[text.index("## All rules") : text.index("What a need costs")]
    cells = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    needs = {
        row[1].strip(" `"): row[3] for row in cells if row[1] != " `mixture.rule` "
    }
    assert set(needs) == set(RULES)
    config = quickstart.get_config()
    config.mixture.options.mirror_descent.signals.gradient_alignment = 1.0
    for name in RULES.keys() - {"replay"}:  # that one needs a run
        config.mixture.rule = name
        listed = {need for need in NEEDS if f"`{need}`" in needs[name]}
        assert listed == make_rule(config, [1.0, 1.0, 1.0]).needs, name


def test_the_example_of_the_generate_page(capsys: pytest.CaptureFixture):
    names: dict = {}
    exec(block_with("docs/generate.md", "warm = Sampling("), names)
    greedy, sampled = names["greedy"], names["sampled"]
    assert greedy[0] == greedy[1]
    assert sampled[0] != sampled[1]  # "depends on ... the row's number"
    assert names["replies"] == sampled[:1]
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == f"{len(sampled[0])} tokens so far"
    assert all(len(reply) == 24 or reply[-1] == 0 for reply in greedy + sampled)


def test_the_generate_page_lists_the_options_of_the_command():
    text = (ROOT / "docs/generate.md").read_text()
    listed = dict(re.findall(r"^\| `--(\w+)` \| `?(\w+)`? \|", text, re.MULTILINE))
    actions = {a.dest: a.default for a in generate_parser()._actions}
    given = {"help", "prompts", "workdir", "file", *OPTIONS}
    assert listed.keys() == actions.keys() - given
    for name, value in listed.items():
        assert type(actions[name])(value) == actions[name], name


def test_the_export_page_lists_the_options_of_the_command():
    text = (ROOT / "docs/export.md").read_text()
    listed = re.findall(r"^\| `--(\w+)` \| (?:`(\w+)` )?\|", text, re.MULTILINE)
    actions = {a.dest: a.default for a in export_parser()._actions}
    given = {"help", "workdir", "to", *OPTIONS}
    assert dict(listed).keys() == actions.keys() - given
    for name, value in listed:
        assert value == str(actions[name] or ""), name


def test_links_in_the_documentation_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_page_on_processes_explains_the_options_of_all_commands():
    text = (ROOT / "docs/processes.md").read_text()
    for name in OPTIONS:
        assert f"--{name}" in text, name
    for page in ("generate", "evaluation", "export"):
        assert "processes.md" in (ROOT / f"docs/{page}.md").read_text()
