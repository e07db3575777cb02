"""The tidy table on disk, and tables of several calls put together."""

from pathlib import Path

import pytest

from experiments.tables import Row, merge, read_csv, write_csv

RUN = Row("s", "ours", 0, "maths", "test_loss", 0.25, 0.01, 9, 1.5, 3, 0.5, "ab12")


def test_the_file_gives_its_rows_back(tmp_path: Path):
    rows = [RUN, RUN._replace(metric="final_weight", value=1 / 3, stderr=None)]
    write_csv(tmp_path / "rows.csv", rows)
    assert read_csv(tmp_path / "rows.csv") == rows


def test_another_table_is_refused(tmp_path: Path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv: its columns are not setting"):
        read_csv(tmp_path / "other.csv")


def test_a_run_that_is_there_wins():
    theirs = RUN._replace(value=9.0)
    other_seed = RUN._replace(seed=1)
    assert merge([RUN], [theirs, other_seed], [theirs]) == [RUN, other_seed]
