"""Code in the documentation runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def python_blocks(path: str) -> list[str]:
    text = (ROOT / path).read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_loop_of_the_conflict_page_runs_and_resolves(capsys: pytest.CaptureFixture):
    (code,) = python_blocks("docs/conflict.md")
    assert len([line for line in code.splitlines() if line]) <= 20
    names: dict = {}
    exec(code, names)
    assert "stationary" in capsys.readouterr().out
    # Both pull at x[0], from both sides, and nothing else is left to gain.
    assert float(names["info"].pareto_gap) < 0.05
    x = names["params"]["x"]
    assert -2 < x[0] < 1
    assert abs(x[1] - 0.5) < 0.05 and abs(x[2] - 0.5) < 0.05


def test_links_in_the_documentation_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"
