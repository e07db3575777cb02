import json
from pathlib import Path

import numpy as np
import pytest

from dcft_jax.reporting import load_history


def write_run(folder: Path, rows: list[dict], config: dict | None = None) -> Path:
    config = config or {"abilities": {"b": {}, "a": {}}}
    (folder / "config.json").write_text(json.dumps(config))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines)
    return folder


def test_rows_become_arrays_in_ability_order(tmp_path: Path):
    rows = [
        {"step": 0, "wall_s": 1.0, "mixture/weight/a": 0.25, "mixture/weight/b": 0.75},
        {"step": 0, "wall_s": 2.0, "conflict/cosine/b/a": -0.5},
        {"step": 5, "wall_s": 3.0, "train/loss/a": None},
    ]
    history = load_history(write_run(tmp_path, rows))
    assert history.abilities == ("b", "a") and history.summary is None
    np.testing.assert_array_equal(history.step_T, [0, 5])
    np.testing.assert_array_equal(history.scalar("wall_s"), [2.0, 3.0])
    weight_TK = history.per_ability("mixture/weight")
    np.testing.assert_array_equal(weight_TK, [[0.75, 0.25], [np.nan, np.nan]])
    cosine_TKK = history.cosines()
    np.testing.assert_array_equal(cosine_TKK[0], [[1.0, -0.5], [-0.5, 1.0]])
    assert np.isnan(cosine_TKK[1]).all()
    assert np.isnan(history.per_ability("train/loss")).all()


def test_an_empty_record_loads(tmp_path: Path):
    history = load_history(write_run(tmp_path, []))
    assert history.per_ability("train/loss").shape == (0, 2)
    assert history.cosines().shape == (0, 2, 2)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="it has no config"):
        load_history(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="it has no metrics"):
        load_history(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="has no abilities"):
        load_history(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        load_history(tmp_path)


def test_the_run_of_the_writers_loads(run_dir: Path):
    history = load_history(run_dir)
    assert history.step_T.tolist() == list(range(101))
    weight_TK = history.per_ability("mixture/weight")[1:]
    np.testing.assert_allclose(weight_TK.sum(axis=1), 1.0)
    assert np.isfinite(history.per_ability("mix_val/loss")).sum() == 11 * 3
    assert history.summary is not None


def test_the_summary_of_a_shorter_run_does_not_count(tmp_path: Path):
    config = {"abilities": {"a": {}}, "run": {"num_steps": 200}}
    workdir = write_run(tmp_path, [{"step": 1}], config)
    for num_steps, counts in ((100, False), (200, True)):
        (workdir / "summary.json").write_text(json.dumps({"num_steps": num_steps}))
        assert (load_history(workdir).summary is not None) == counts


def test_cosines_of_blocks_and_without_bias(run_dir: Path):
    history = load_history(run_dir)
    cosine_NTKK, blocks = history.block_cosines()
    assert blocks == ["embed", "layers.0", "layers.1"]
    raw_TKK, free_TKK = history.cosines(), history.cosines("debiased_cosine")
    at = slice(1, None)  # nothing is recorded of step 0
    np.testing.assert_allclose(free_TKK[at, 0, 1], 1.4 * raw_TKK[at, 0, 1])
    np.testing.assert_allclose(cosine_NTKK[2, at, 2, 0], raw_TKK[at, 0, 2] + 0.2)
