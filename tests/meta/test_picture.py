"""The picture shows what the report says."""

from pathlib import Path

import pytest

from dcft_jax.meta.picture import _entries, save_picture

LAWS = {
    "relative": {"uniform": 0.3, "meta": 0.2},
    "relative_interval": {"uniform": [0.25, 0.35], "meta": [0.1, 0.3]},
}
FOUND = {"laws": LAWS, "proved": {"methods": {}}}
MEASURED = {"methods": {"ridge": {"relative": {"mean": 0.4, "interval": [0.3, 0.5]}}}}


def test_the_best_comes_first():
    entries = _entries(LAWS["relative"], LAWS["relative_interval"])
    assert entries == [("meta", 0.2, (0.1, 0.3)), ("uniform", 0.3, (0.25, 0.35))]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_file_with_a_panel_for_each_table(tmp_path: Path, suffix: str):
    part = {"relative": 0.25, "relative_interval": [0.2, 0.3]}
    ablations = {
        "ablation": {"losses": part},
        "ablation_surrogate": {"quadratic": part},
    }
    path = tmp_path / "new" / f"regret.{suffix}"
    save_picture(FOUND | ablations | {"proved": MEASURED}, path)
    assert path.stat().st_size > 10_000
    if suffix == "svg":
        text = path.read_text()
        names = ("meta", "losses", "quadratic", "surrogate", "ridge")
        assert all(name in text for name in names)
        save_picture(FOUND, path)
        assert "by trained models" not in path.read_text()
