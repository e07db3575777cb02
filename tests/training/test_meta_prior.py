"""Runs whose prior is predicted from a support set, and the record they leave."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from dcft_jax.meta import Prediction, cases, open_store, save
from dcft_jax.meta.features import ABILITY, TASK
from dcft_jax.meta.fit import Options, fit
from dcft_jax.meta.network import Shape
from dcft_jax.meta.regret import solve
from dcft_jax.training import experience, loop, meta_prior
from dcft_jax.training.run import Run, open_run
from tests.meta.synthetic_cases import make_cases


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fitted on cases that are like nothing that is ever trained here."""
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    solved = solve(make_cases(tasks_per_category=1, num_worlds=1))
    options = Options(shape=Shape(width=8, heads=2), members=2, steps=2, batch=4)
    save(fit(solved, options), path)
    return path


@pytest.fixture
def config(tiny_config: ConfigDict, network: Path, tmp_path: Path) -> ConfigDict:
    support = tmp_path / "sums.jsonl"
    rows = [{"prompt": f"{a} + {a + 3}", "response": str(2 * a + 3)} for a in range(40)]
    support.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny_config.mixture.prior = "meta"
    tiny_config.mixture.meta.update(
        support=str(support), network=str(network), single_reference=True
    )
    tiny_config.mixture.meta.fallback = "proportional"
    return tiny_config


def start(config: ConfigDict, folder: Path) -> Run:
    console = Console(width=200, force_terminal=False)
    return open_run(config, folder, console, jax.devices()[:1])


def prediction(weights_K: tuple[float, ...], trusted: bool = True) -> Prediction:
    array_K = np.array(weights_K, np.float32)
    stderr_K = np.full(3, 0.2, np.float32)
    return Prediction(array_K, array_K[::-1], stderr_K, 2.5, trusted, ())


def test_a_run_embeds_falls_back_says_why_and_is_recorded(
    config: ConfigDict, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch
):
    run = start(config, tmp_path / "runs" / "one")
    said = capsys.readouterr().out
    assert "Not trusted for this task, so the prior is used:" in said
    sizes_K = run.program.composition.size_KT.sum(axis=1)
    expected_K = sizes_K / sizes_K.sum()
    np.testing.assert_allclose(run.program.composition.prior_K, expected_K, rtol=1e-6)
    stored = json.loads((run.workdir / meta_prior.FILE).read_text())
    assert stored["reasons"] and not stored["trusted"]

    def never(*_):
        raise AssertionError("a run that goes on does not predict again")

    loop.train(run)
    monkeypatch.setattr(meta_prior, "embed_support", never)
    again = start(config, run.workdir)
    np.testing.assert_array_equal(
        again.program.composition.prior_K, run.program.composition.prior_K
    )
    store = open_store(tmp_path / "runs" / experience.NAME)
    (case,) = cases(store, min_models=1)
    store.close()
    assert case.task == "sums" and case.abilities == run.abilities
    np.testing.assert_allclose(case.weights_NK.sum(), 1, rtol=1e-6)
    before = case.features.task_G[TASK.index("loss")]
    assert case.loss_N[0] < before < np.log(run.data.tokenizer.vocab_size) + 1
    share_K = case.features.ability_KF[:, ABILITY.index("share")]
    np.testing.assert_allclose(np.exp(share_K), expected_K, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "trusted", "expected"),
    [
        ({}, True, 2.0),  # not 2.5: the pull of a step is at most the whole way
        ({"mixture.options.mirror_descent.step_size": 0.1}, True, 2.5),
        ({"mixture.meta.set_anchor": False}, True, 1.0),
        ({}, False, 1.0),
    ],
)
def test_a_prediction_is_the_prior_and_the_anchor(
    config: ConfigDict, tmp_path: Path, monkeypatch, changes, trusted, expected
):
    config.update_from_flattened_dict(changes)
    found = prediction((0.2, 0.7, 0.1), trusted)
    monkeypatch.setattr(
        meta_prior, "predict_mixture", lambda *_: (found, ["a line that is shown"])
    )
    seen = {}
    make_program = meta_prior.with_predicted_prior

    def watched(*arguments):
        seen["config"] = make_program(*arguments)
        return seen["config"]

    monkeypatch.setattr("dcft_jax.training.run.with_predicted_prior", watched)
    run = start(config, tmp_path / "run")
    np.testing.assert_allclose(
        run.program.composition.prior_K, [0.2, 0.7, 0.1], rtol=1e-6
    )
    assert seen["config"].mixture.options.mirror_descent.anchor == expected
    # What the run is, is what the user wrote.
    assert run.config.mixture.prior == "meta"
    assert run.config.mixture.options.mirror_descent.anchor == 1.0


def test_all_abilities_are_examples_with_their_own_sizes(config: ConfigDict, tmp_path):
    run = start(config, tmp_path / "run")
    features = meta_prior.stored_features(run.workdir)
    budget = run.num_steps * run.rows_per_step * config.data.seq_len
    assert features.num_abilities == 3
    np.testing.assert_allclose(
        np.exp(features.task_G[TASK.index("budget")]), budget, rtol=1e-5
    )
    np.testing.assert_allclose(
        np.exp(features.task_G[TASK.index("support")]), 40, rtol=1e-5
    )
    # Sums are the task of one of the abilities, and unlike the others.
    alignment_K = features.ability_KF[:, ABILITY.index("alignment")]
    assert run.abilities[int(np.argmax(alignment_K))] == "maths"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("support", "none.jsonl", r"mixture\.meta\.support.*none\.jsonl.*examples"),
        ("network", "none.safetensors", r"mixture\.meta\.network.*none\.safetensors"),
        ("fallback", "meta", r"mixture\.meta\.fallback.*meta"),
    ],
)
def test_what_cannot_be_used_is_named(
    config: ConfigDict, tmp_path: Path, field: str, value: str, message: str
):
    config.mixture.meta[field] = value
    with pytest.raises(ValueError, match=message):
        start(config, tmp_path / "run")


def test_too_small_a_support_set_is_refused(config: ConfigDict, tmp_path: Path):
    support = Path(config.mixture.meta.support)
    support.write_text("".join(support.read_text().splitlines(keepends=True)[:9]))
    with pytest.raises(ValueError, match=r"mixture\.meta\.support.*16.*9"):
        start(config, tmp_path / "run")


def test_a_store_that_cannot_be_written_costs_a_warning(
    config: ConfigDict, tmp_path: Path, capsys: pytest.CaptureFixture
):
    config.mixture.prior = "uniform"
    config.logging.experience = str(tmp_path / "no.sqlite")
    (tmp_path / "no.sqlite").write_text("this is no database, but a long enough text")
    run = start(config, tmp_path / "run")
    summary = loop.train(run)
    said = " ".join(capsys.readouterr().out.split())
    assert "the run was not added to the experience" in said
    assert summary["num_steps"] == run.num_steps
    quiet = dataclasses.replace(run, config=ConfigDict(run.config.to_dict()))
    quiet.config.logging.experience = ""
    assert experience.store_path(quiet) is None


def test_weights_are_averaged_over_the_steps_they_held():
    path = ((0, (1.0, 0.0)), (2, (0.5, 0.5)), (10, (0.0, 1.0)))
    np.testing.assert_allclose(experience.mean_weights(path, 10), [0.6, 0.4])
    np.testing.assert_allclose(experience.mean_weights(path[:1], 0), [1.0, 0.0])
