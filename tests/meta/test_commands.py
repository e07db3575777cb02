"""The commands of `python -m dcft_jax.meta`."""

import json
from pathlib import Path

import numpy as np
import pytest

from dcft_jax.config import to_plain
from dcft_jax.meta import add_embedding, add_run, load, open_store
from dcft_jax.meta.__main__ import main, read_cases, worlds
from dcft_jax.meta.experience import Outcome, Record, export
from dcft_jax.meta.features import ABILITY, TASK
from tests.conftest import make_tiny_config
from tests.meta.synthetic_cases import make_cases
from tests.training.test_kills import CONFIG_FILE


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic cases as a collection would have left them."""
    path = tmp_path_factory.mktemp("stores") / "experience.sqlite"
    opened = open_store(path)
    for case in make_cases(tasks_per_category=2, num_worlds=1):
        world = f"{case.world}/{case.task}"
        add_embedding(opened, world, case.task, case.features)
        for n, weights_K in enumerate(case.weights_NK.astype(float)):
            outcome = Outcome(
                *(case.task, case.category, 2.0, float(case.loss_N[n]), 0.0, 0.5, 9)
            )
            record = Record(
                world=world,
                source="population",
                abilities=case.abilities,
                weights_K=tuple(weights_K / weights_K.sum()),
                budget=10**6,
                parameters=2 * 10**5,
                seed=0,
                outcomes=(outcome,),
            )
            add_run(opened, record)
    packed = path.with_suffix(".sqlite.gz")
    export(opened, packed)
    opened.close()
    return packed


def test_ranges_of_worlds():
    assert worlds("3") == [3]
    assert worlds("0-2,7") == [0, 1, 2, 7]
    with pytest.raises(SystemExit):
        main(["collect", "--store", "x", "--worlds", "two"])


@pytest.mark.slow
def test_fit_and_report(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    main(["fit", "--store", str(store), "--out", str(tmp_path / "network.safetensors")])
    fitted = load(tmp_path / "network.safetensors")
    assert fitted.domain.num_cases == len(read_cases([store])) == 10
    said = capsys.readouterr().out
    assert (
        f"regret on categories left out: {fitted.held_out_regret:.3f}" in said.lower()
    )
    alone = ["--json", "--seeds", "1", "--no-ablation", "--tasks", "all"]
    main(["report", "--store", str(store), *alone])
    table = json.loads(capsys.readouterr().out)
    methods = {"meta", "uniform", "proportional", "mean", "knn", "ridge", "chameleon"}
    assert methods | {"oracle"} <= table["regret"].keys()
    for method, value in table["regret"].items():
        low, high = table["regret_interval"][method]
        assert 0 <= low <= value <= high
    assert table["regret"]["oracle"] < table["regret"]["uniform"]


def test_merge_says_how_much_there_is(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    main(["merge", "--into", str(tmp_path / "all.sqlite"), str(store), str(store)])
    assert "10 cases" in capsys.readouterr().out


def test_errors_are_one_line(tmp_path: Path):
    open_store(tmp_path / "empty.sqlite").close()
    with pytest.raises(SystemExit, match=r"empty\.sqlite.*`collect` makes some"):
        main(["report", "--store", str(tmp_path / "empty.sqlite")])
    with pytest.raises(SystemExit, match=r"none\.sqlite"):
        main(["fit", "--store", str(tmp_path / "none.sqlite"), "--out", "x"])
    quickstart = ["--config", "configs/quickstart.py", "--support", "none.jsonl"]
    with pytest.raises(SystemExit, match=r"mixture\.meta\.support.*none\.jsonl"):
        main(["embed", *quickstart])
    with pytest.raises(SystemExit, match=r"no field.*nope"):
        main(["embed", *quickstart, "--config.mixture.nope=1"])
    with pytest.raises(SystemExit, match="unexpected arguments: more"):
        main(["embed", *quickstart, "more"])


def test_embed_shows_the_features_of_a_task(
    task_files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    config = make_tiny_config(task_files, tmp_path / "cache")
    file = tmp_path / "config.py"
    file.write_text(CONFIG_FILE.format(text=json.dumps(to_plain(config))))
    support = tmp_path / "sums.jsonl"
    support.write_text("".join(task_files["maths"].open().readlines()[:20]))
    main(
        [
            *("embed", "--config", str(file), "--support", str(support)),
            "--config.run.num_steps=11",
        ]
    )
    found = json.loads(capsys.readouterr().out)
    assert [*found["task"]] == [*TASK]
    assert [*found["abilities"]] == ["maths", "code", "general"]
    assert [*found["abilities"]["code"]] == [*ABILITY]
    np.testing.assert_allclose(np.exp(found["task"]["support"]), 20, rtol=1e-5)
    tokens = 11 * config.data.num_slots * config.data.rows_per_slot * 64
    np.testing.assert_allclose(np.exp(found["task"]["budget"]), tokens, rtol=1e-5)
    assert found["abilities"]["maths"]["alignment"] > 0.5
