import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dcft_jax import report
from dcft_jax.reporting import load_history, render_report
from dcft_jax.reporting.plots import PLOTS

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks that every tag is closed, and collects tags, ids and addresses."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.ids = [], Counter(), Counter()
        self.addresses, self.text = [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[value] += 1
            if name in ("src", "href", "xlink:href"):
                self.addresses.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_needs_nothing_else(run_dir: Path):
    text = render_report(load_history(run_dir))
    page = Page(text)
    assert page.tags["svg"] == len(PLOTS)
    assert page.tags["script"] == page.tags["link"] == 0
    assert max(page.ids.values()) == 1
    for address in page.addresses:
        assert address.startswith("data:image/png") or address[1:] in page.ids
    references = re.findall(r"url\(#([^)]+)\)", text)
    assert references and set(references) <= set(page.ids)
    assert "http" not in text
    assert "46.0 ± 3.1 %" in page.text and "1,234,567" in page.text
    assert "jax 0.10.2" in page.text and "Finished: 100 steps." in page.text


def test_what_users_wrote_is_escaped(tmp_path: Path):
    name = "<b>x&y"
    config = {
        "abilities": {name: {"note": "</pre><script>alert(1)</script>"}},
        "run": {"seed": 0, "num_steps": 2},
        "mixture": {"rule": "static"},
        "conflict": {"resolver": "<i>"},
    }
    row = {"step": 1, "wall_s": 1.0, f"mixture/weight/{name}": 1.0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row))
    page = Page(render_report(load_history(tmp_path)))
    assert page.tags["script"] == page.tags["b"] == page.tags["i"] == 0
    assert name in page.text and "alert(1)" in page.text


def test_missing_series_are_named(tmp_path: Path):
    config = {
        "abilities": {"a": {}},
        "run": {"seed": 0, "num_steps": 2},
        "mixture": {"rule": "static"},
        "conflict": {"resolver": "mean"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "metrics.jsonl").write_text("")
    text = render_report(load_history(tmp_path))
    assert "<svg" not in text
    assert text.count("Left out:") == len(PLOTS) + 1
    assert "Not finished: recorded up to step 0 of 2." in text


def test_the_command_makes_the_report_of_any_run(
    run_dir: Path, unfinished_dir: Path, capsys: pytest.CaptureFixture
):
    for workdir in (run_dir, unfinished_dir):
        report.main([str(workdir)])
        path = Path(capsys.readouterr().out.strip())
        assert path == workdir / "report.html" and path.stat().st_size > 10_000


def test_the_command_refuses_what_is_no_run(tmp_path: Path):
    with pytest.raises(SystemExit, match="is not the workdir of a run"):
        report.main([str(tmp_path)])
